"""Backbones beside torchvision and timm: equal to theirs where both exist, and theirs as networks of ours."""

import pytest
import torch
from torch import nn

from levelhead.backbones.resnet import ResNet
from levelhead.backbones.timm import Timm
from levelhead.backbones.torchvision import Torchvision
from levelhead.backbones.vgg import VGG
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network

models = pytest.importorskip("torchvision.models", reason="needs torchvision: make test-interop")
timm = pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop


def signature(shape: tuple[int, ...], num_classes: int) -> Signature:
    return Signature(shape, num_classes, Categorical(num_classes), (0.4,) * shape[0], (0.2,) * shape[0])


def copy_in_order(ours: nn.Module, theirs: nn.Module) -> None:
    """Every tensor of `theirs` into `ours`: the layers stand in the same order under other names."""
    target = {name: t for name, t in ours.state_dict().items() if "normalise" not in name}
    source = list(theirs.state_dict().values())
    assert [t.shape for t in target.values()] == [t.shape for t in source]
    for tensor, value in zip(target.values(), source, strict=True):
        tensor.copy_(torch.rand_like(value) + 0.5 if value.ndim == 1 and value.is_floating_point() else value)
    for tensor, value in zip(source, target.values(), strict=True):
        tensor.copy_(value)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_our_resnet_computes_what_torchvisions_does(depth):
    ours = ResNet(depth=depth, stem="imagenet")(signature((3, 64, 64), 1000)).eval()
    theirs = models.get_model(f"resnet{depth}").eval()
    copy_in_order(ours, theirs)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x)[0], theirs((x - 0.4) / 0.2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("depth", [11, 16])
def test_the_convolutions_of_our_vgg_compute_what_torchvisions_do(depth):
    ours = VGG(depth=depth, norm="none")(signature((3, 32, 32), 10)).eval()
    theirs = models.get_model(f"vgg{depth}").features.eval()
    copy_in_order(ours.features, theirs)
    x = torch.rand(2, 3, 32, 32)
    expected = theirs((x - 0.4) / 0.2).mean((2, 3))
    torch.testing.assert_close(ours.embed(x)[0], expected, rtol=1e-3, atol=1e-4)


FOREIGN = [
    (Torchvision(), (3, 32, 32)),
    (Torchvision(), (1, 28, 28)),
    (Torchvision("vgg11_bn"), (3, 32, 32)),
    (Torchvision("mobilenet_v3_small"), (1, 32, 32)),
    (Torchvision("densenet121"), (3, 32, 32)),
    (Torchvision("vit_b_32", options={"image_size": 64}), (3, 64, 64)),
    (Timm(), (3, 32, 32)),
    (Timm(options={"drop_rate": 0.3}), (1, 28, 28)),
    (Timm("vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8, "depth": 2}), (3, 32, 32)),
    (Timm("convnext_atto"), (3, 32, 32)),
    (Timm("mobilenetv3_small_050"), (2, 40, 32)),
]


@pytest.mark.parametrize("spec, shape", FOREIGN, ids=[f"{spec.name}-{shape}" for spec, shape in FOREIGN])
def test_their_models_as_networks(spec, shape):
    network = spec(signature(shape, 7))
    assert isinstance(network, Network)
    assert [name for name, _ in network.features.named_children()] == ["normalise", "model"]
    outputs = network(torch.rand(4, *shape))
    assert outputs.shape == (1, 4, 7)
    nn.functional.cross_entropy(outputs[0], torch.arange(4)).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("spec", [Torchvision(), Timm()], ids=repr)
def test_torchs_seed_decides_the_weights(spec):
    def weights(seed):
        torch.manual_seed(seed)
        return spec(signature((1, 32, 32), 7)).state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["features.model.conv1.weight"], other["features.model.conv1.weight"])


def test_a_network_of_timm_computes_what_the_model_does():
    torch.manual_seed(3)
    model = timm.create_model("resnet18", num_classes=7, in_chans=1).eval()
    torch.manual_seed(3)
    network = Timm()(signature((1, 32, 32), 7)).eval()
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network(x)[0], model((x - 0.4) / 0.2), rtol=1e-4, atol=1e-4)


def test_a_model_without_a_linear_head_is_refused():
    with pytest.raises(ValueError, match=r"Torchvision.*squeezenet1_1.* no linear layer"):
        Torchvision("squeezenet1_1")(signature((3, 64, 64), 7))
