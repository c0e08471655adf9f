import pytest
import torch
from backbones.count import num_parameters
from torch import nn

from levelhead.backbones.vgg import CONVOLUTIONS, VGG
from levelhead.likelihood import Signature

# Counts published for CIFAR-10 have a bias on every convolution, also in front of BatchNorm, where it does nothing.
BIASES = {11: 2752, 16: 4224}


@pytest.mark.parametrize(
    "spec, published",
    [
        (VGG(depth=11), 9_231_114 - BIASES[11]),
        (VGG(depth=16), 14_728_266 - BIASES[16]),
        (VGG(depth=16, norm="none"), 14_728_266 - 2 * BIASES[16]),
    ],
    ids=str,
)
def test_parameters(spec, published):
    assert num_parameters(spec, (3, 32, 32), 10) == published


def test_pre_activation_normalises_and_activates_before_each_convolution_but_the_first():
    network = VGG(depth=11, width=2, preact=True)(Signature((3, 32, 32)))
    kinds = [type(m).__name__ for m in network.modules() if not list(m.children())]
    kinds = [kind for kind in kinds if kind not in ("Normalise", "MaxPool2d", "AdaptiveAvgPool2d", "Flatten", "Linear")]
    assert kinds == ["Conv2d", *["BatchNorm2d", "ReLU", "Conv2d"] * 7, "BatchNorm2d", "ReLU"]
    plain = VGG(depth=11, width=2)(Signature((3, 32, 32)))
    shapes = [[p.shape for p in n.parameters() if p.ndim == 4] for n in (plain, network)]
    assert shapes[0] == shapes[1]
    assert network(torch.rand(2, 3, 32, 32)).shape == (1, 2, 2)


@pytest.mark.parametrize("depth", CONVOLUTIONS)
def test_depth_counts_the_papers_layers(depth):
    network = VGG(depth=depth, width=2)(Signature((3, 32, 32)))
    assert len([m for m in network.modules() if isinstance(m, nn.Conv2d)]) + 3 == depth


@pytest.mark.parametrize("size, sides", [(28, [14, 7, 4, 2, 1]), (32, [16, 8, 4, 2, 1]), (64, [32, 16, 8, 4, 2])])
def test_resolution_of_the_stages(size, sides):
    network, z, got = VGG(width=2)(Signature((1, size, size))), torch.rand(2, 1, size, size), []
    for name, stage in network.features.named_children():
        z = stage(z)
        if name.startswith("stage"):
            got.append(z.shape[-1])
    assert got == sides


def test_stages():
    stages = [name for name, _ in VGG(width=2)(Signature((3, 32, 32))).features.named_children()]
    assert stages == ["normalise", "stage1", "stage2", "stage3", "stage4", "stage5", "pool", "flatten"]


@pytest.mark.parametrize(
    "text, spec",
    [
        ("vgg16", VGG(depth=16)),
        ("vgg-11", VGG(depth=11)),
        ("preact_vgg16", VGG(depth=16, preact=True)),
        ("vgg", None),
        ("xvgg16", None),
    ],
)
def test_shorthand(text, spec):
    assert VGG.shorthand(text) == spec


@pytest.mark.parametrize(
    "fields, says", [({"depth": 12}, "depth .*12"), ({"width": 0}, "width"), ({"norm": "layer"}, "norm .*'layer'")]
)
def test_mistakes(fields, says):
    with pytest.raises(ValueError, match=f"VGG: {says}"):
        VGG(**fields)
