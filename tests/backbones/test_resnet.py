import pytest
import torch
from backbones.count import num_parameters
from torch import nn

from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Signature

COLOUR, LARGE = (3, 32, 32), (3, 64, 64)
PROJECTIONS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # what the paper's zero padding does without
FINAL_NORM = 2 * 512


@pytest.mark.parametrize(
    "spec, shape, num_classes, published",
    [
        (ResNet(depth=8), COLOUR, 10, 75_290 + PROJECTIONS),
        (ResNet(depth=20), COLOUR, 10, 269_722 + PROJECTIONS),
        (ResNet(depth=32), COLOUR, 10, 464_154 + PROJECTIONS),
        (ResNet(depth=56), COLOUR, 10, 853_018 + PROJECTIONS),
        (ResNet(depth=18), COLOUR, 10, 11_173_962),
        (ResNet(depth=18, stem="imagenet"), LARGE, 1000, 11_689_512),
        (ResNet(depth=34, stem="imagenet"), LARGE, 1000, 21_797_672),
        (ResNet(depth=50, stem="imagenet"), LARGE, 1000, 25_557_032),
        (ResNet(depth=101, stem="imagenet"), LARGE, 1000, 44_549_160),
        (ResNet(depth=50), COLOUR, 10, 23_520_842),
        (ResNet(depth=18, preact=True), COLOUR, 10, 11_171_146 + FINAL_NORM),  # a count published without that norm
    ],
    ids=str,
)
def test_parameters(spec, shape, num_classes, published):
    assert num_parameters(spec, shape, num_classes) == published


@pytest.mark.parametrize("depth, layers", [(8, 8), (20, 20), (56, 56), (18, 18), (34, 34), (50, 50), (101, 101)])
def test_depth_counts_the_layers_of_the_longest_path(depth, layers):
    with torch.device("meta"):
        network = ResNet(depth=depth)(Signature(COLOUR, 10))
    body = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(body) == layers


def test_stages():
    stages = [name for name, _ in ResNet(depth=8)(Signature(COLOUR, 10)).features.named_children()]
    assert stages == ["normalise", "stem", "stage1", "stage2", "stage3", "pool", "flatten"]
    stages = [name for name, _ in ResNet(depth=18, width=4, preact=True)(Signature(COLOUR)).features.named_children()]
    assert stages == ["normalise", "stem", "stage1", "stage2", "stage3", "stage4", "final", "pool", "flatten"]


@pytest.mark.parametrize(
    "spec, shape, sides",
    [
        (ResNet(depth=8), (1, 28, 28), [28, 28, 14, 7]),
        (ResNet(depth=18, width=4), COLOUR, [32, 32, 16, 8, 4]),
        (ResNet(depth=18, width=4, stem="imagenet"), LARGE, [16, 16, 8, 4, 2]),
    ],
    ids=str,
)
def test_resolution_of_the_stages(spec, shape, sides):
    network, z, got = spec(Signature(shape)), torch.rand(2, *shape), []
    for name, stage in network.features.named_children():
        z = stage(z)
        if name.startswith("st"):
            got.append(z.shape[-1])
    assert got == sides


def test_every_subsampling_is_a_strided_convolution():
    network = ResNet(depth=20)(Signature(COLOUR, 10))
    strided = [name for name, m in network.named_modules() if getattr(m, "stride", 1) == (2, 2)]
    assert [name.split(".", 1)[1] for name in strided] == [
        "stage2.0.body.conv1",
        "stage2.0.shortcut.conv",
        "stage3.0.body.conv1",
        "stage3.0.shortcut.conv",
    ]


def test_initialisation_keeps_the_variance_of_gradients():
    network = ResNet(depth=18)(Signature(COLOUR, 10))
    for conv in (m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 10_000):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        torch.testing.assert_close(conv.weight.var(), torch.tensor(2 / fan_out), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    "text, spec",
    [
        ("resnet20", ResNet(depth=20)),
        ("resnet-18", ResNet(depth=18)),
        ("preact_resnet18", ResNet(depth=18, preact=True)),
        ("preactresnet20", ResNet(depth=20, preact=True)),
        ("resnet", None),
        ("wide_resnet28_10", None),
        ("resnet20b", None),
    ],
)
def test_shorthand(text, spec):
    assert ResNet.shorthand(text) == spec


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"depth": 21}, "depth must be 18, 34, 50, 101 .*; got 21"),
        ({"depth": 2}, "depth"),
        ({"width": 0}, "width"),
        ({"stem": "large"}, "stem .*'large'"),
        ({"norm": "none"}, "norm .*'none'"),
    ],
)
def test_mistakes(fields, says):
    with pytest.raises(ValueError, match=f"ResNet: {says}"):
        ResNet(**fields)
