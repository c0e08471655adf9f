"""What every backbone must do; each case is a spec and the inputs it meets."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from levelhead.backbones.alter_net import AlterNet
from levelhead.backbones.factory import Factory
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.pit import PiT
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.swin import Swin
from levelhead.backbones.vgg import VGG
from levelhead.backbones.vit import ViT
from levelhead.backbones.wide_resnet import WideResNet
from levelhead.layers.normalise import Normalise
from levelhead.likelihood import Categorical, Signature

GREY, COLOUR, LARGE = (1, 28, 28), (3, 32, 32), (3, 64, 64)
CASES = [
    (MLP(), (7,)),
    (MLP(hidden=(20, 30), activation="tanh", batch_norm=True), (7,)),
    (MLP(hidden=(20,)), GREY),
    (LeNet(), GREY),
    (LeNet(), COLOUR),
    (LeNet(), (1, 12, 15)),
    (ResNet(depth=8), GREY),
    (ResNet(depth=20), COLOUR),
    (ResNet(depth=8, norm="group"), COLOUR),
    (ResNet(depth=8, preact=True), (2, 17, 15)),
    (ResNet(depth=18, width=8), GREY),
    (ResNet(depth=18, width=8, preact=True, stem="imagenet"), LARGE),
    (ResNet(depth=50, width=8, stem="imagenet"), LARGE),
    (ResNet(depth=50, width=8, preact=True), COLOUR),
    (WideResNet(depth=10, width=2), GREY),
    (WideResNet(depth=16, width=1, norm="group"), COLOUR),
    (VGG(depth=11, width=8), GREY),
    (VGG(depth=16, width=8), COLOUR),
    (VGG(depth=11, width=16, norm="none"), GREY),
    (AlterNet(depth=18, width=4), GREY),
    (AlterNet(depth=50, width=4, stem="imagenet", per_head_bias=True), LARGE),
    (AlterNet(depth=18, width=8, norm="group", variant="A"), (2, 17, 15)),
    (ViT(patch=4, depth=2, dim_head=4), GREY),
    (ViT(patch=4, depth=2, dim_head=4, head="gap", neighbourhood=3), COLOUR),
    (PiT(patch=4, stride=4, depth=(1, 1), heads=(1, 2), dim_head=8), GREY),
    (PiT(patch=4, stride=2, depth=(1, 1, 1), dim_head=4, head="gap"), (2, 18, 16)),
    (Swin(patch=2, depth=(2, 2), heads=(1, 2), dim_head=8), GREY),
    (Swin(patch=1, depth=(1, 2, 1), heads=(1, 2, 4), dim_head=4, window=3), (2, 17, 15)),
    (Factory(), GREY),
]
each_backbone = pytest.mark.parametrize("spec, shape", CASES, ids=[f"{spec}-{shape}" for spec, shape in CASES])


def signature(shape: tuple[int, ...], num_classes: int = 5) -> Signature:
    channels = shape[0]
    return Signature(shape, num_classes, Categorical(num_classes), (0.5,) * channels, (0.25,) * channels)


def build(spec, shape, seed: int = 0):
    torch.manual_seed(seed)
    return spec(signature(shape))


def leaves(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if not list(child.children())]


class FunctionsBetweenModules(TorchFunctionMode):
    """Names of torch functions that are called while no leaf module runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.inside = 0
        for leaf in leaves(module):
            leaf.register_forward_pre_hook(self.enter)
            leaf.register_forward_hook(self.leave)

    def enter(self, *_):
        self.inside += 1

    def leave(self, *_):
        self.inside -= 1

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = resolve_name(func) or repr(func)
        if not self.inside and not name.endswith(".__get__"):  # the shape checker reads attributes
            self.names.add(name)
        return func(*args, **kwargs or {})


@each_backbone
def test_shapes(spec, shape):
    network = build(spec, shape).eval()
    x = torch.rand(3, *shape)
    assert network.embed(x).shape == (1, 3, network.width)
    assert network(x).shape == (1, 3, 5)
    assert network.features(x).shape == (3, network.width)
    assert network.channel == -1


@each_backbone
def test_outputs_are_the_head_of_the_features(spec, shape):
    network = build(spec, shape).eval()
    x = torch.rand(3, *shape)
    torch.testing.assert_close(network(x)[0], network.head(network.features(x)), rtol=1e-4, atol=1e-5)


@each_backbone
def test_torchs_seed_decides_the_weights(spec, shape):
    one, same, other = (build(spec, shape, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if name.endswith("weight") and one[name].ndim > 1]
    assert drawn
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


@each_backbone
def test_every_parameter_gets_a_gradient(spec, shape):
    network = build(spec, shape)
    outputs = network(torch.rand(8, *shape))[0]
    nn.functional.cross_entropy(outputs, torch.arange(8) % 5).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@each_backbone
def test_no_module_has_two_parents(spec, shape):
    network = build(spec, shape)
    names = [name for name, _ in network.named_modules(remove_duplicate=False)]
    assert len(names) == len(list(network.modules()))


@each_backbone
def test_only_sums_happen_outside_of_modules(spec, shape):
    network = build(spec, shape).eval()
    x = torch.rand(2, *shape)
    with FunctionsBetweenModules(network.features) as between:
        network.features(x)
    assert between.names <= {"torch.Tensor.add"}


@each_backbone
def test_every_leaf_runs_once(spec, shape):
    network = build(spec, shape).eval()
    calls = dict.fromkeys(leaves(network.features), 0)

    def count(module, *_):
        calls[module] += 1

    for leaf in calls:
        leaf.register_forward_hook(count)
    network.features(torch.rand(2, *shape))
    assert set(calls.values()) == {1}


@each_backbone
def test_the_first_stage_normalises_by_the_signature(spec, shape):
    network = build(spec, shape)
    first = next(iter(network.features.children()))
    assert isinstance(first, Normalise)
    torch.testing.assert_close(first.mean, torch.full((shape[0],), 0.5))
    torch.testing.assert_close(first.std, torch.full((shape[0],), 0.25))


@pytest.mark.parametrize("spec", [LeNet(), ResNet(), WideResNet(), VGG(), AlterNet(), ViT(), PiT(), Swin()], ids=repr)
def test_image_backbones_refuse_tables(spec):
    with pytest.raises(ValueError, match=rf"{type(spec).__name__} reads images .* \(7,\)"):
        spec(signature((7,)))
