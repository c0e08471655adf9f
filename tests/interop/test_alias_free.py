"""Alias-free layers in torchvision's and timm's networks: places, blocks, keys, and training."""

import pytest
import torch
from torch import nn

from levelhead.layers.aa_conv import AAConv2d
from levelhead.layers.aa_max_pool import AAMaxPool2d
from levelhead.layers.blur_relu import BlurReLU
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.surgeries.alias_free import FUNCTIONAL, AliasFree

torchvision = pytest.importorskip("torchvision", reason="needs torchvision: make test-interop")
timm = pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop

SIGNATURE = Signature((3, 64, 64), 10, Categorical(10), (0.4,) * 3, (0.2,) * 3)
KINDS = (AAConv2d, AAMaxPool2d, BlurReLU)


def wrapped(library: str, name: str) -> Network:
    """A small network of the library, of ten classes."""
    module = (
        getattr(torchvision.models, name)(num_classes=10)
        if library == "torchvision"
        else timm.create_model(name, num_classes=10)
    )
    heads = [place for place, child in module.named_modules() if isinstance(child, nn.Linear)]
    return Network.wrap(module.eval(), head=heads[-1], signature=SIGNATURE)


@pytest.mark.parametrize(
    "library, name, blocks, everywhere, first_two",
    [
        ("torchvision", "resnet18", 5, (7, 1, 9), (1, 1, 3)),
        ("timm", "resnet18", 5, (7, 1, 17), (1, 1, 5)),
        ("torchvision", "vgg11_bn", 5, (0, 5, 8), (0, 2, 2)),
        ("timm", "resnet26d", 5, (4, 1, 27), (1, 1, 9)),
        ("torchvision", "densenet121", 8, (1, 1, 120), (1, 1, 13)),
        ("torchvision", "mobilenet_v2", 15, (5, 0, 0), (1, 0, 0)),
    ],
)
def test_places_by_block(
    library: str, name: str, blocks: int, everywhere: tuple[int, ...], first_two: tuple[int, ...]
) -> None:
    network = wrapped(library, name)
    state = network.state_dict()
    for made, expected in ((AliasFree()(network), everywhere), (AliasFree(blocks=2)(network), first_two)):
        assert tuple(len(made.layers(kind)) for kind in KINDS) == expected
        after = {key.replace(".module.", "."): tensor for key, tensor in made.state_dict().items()}
        assert after.keys() == state.keys()
        assert all(torch.equal(after[key], tensor) for key, tensor in state.items())
    assert AliasFree(blocks=blocks)(network).notes[-1].converted == AliasFree()(network).notes[-1].converted
    assert AliasFree(blocks=blocks - 1)(network).notes[-1].converted != AliasFree()(network).notes[-1].converted


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_it_trains(library: str) -> None:
    made = AliasFree(initial_blur=True)(wrapped(library, "resnet18")).train()
    made(SIGNATURE.example(2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    assert not any(isinstance(layer, nn.ReLU) and layer.inplace for layer in made.modules())


def test_functional_relus_are_noted() -> None:
    """torchvision's DenseNet ends with one."""
    note = AliasFree()(wrapped("torchvision", "densenet121")).notes[-1]
    assert ("features", FUNCTIONAL) in note.skipped
