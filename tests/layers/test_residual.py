"""Blocks against the papers' formulas, written out with functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from levelhead.layers.residual import Design, block, residual_stages, stem

BASIC = Design(bottleneck=False, preact=False, norm="batch")
BOTTLENECK = Design(bottleneck=True, preact=False, norm="batch")


def settled(module: nn.Module) -> nn.Module:
    """In evaluation mode, with norms that are not the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def bn(x, layer):
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


@pytest.mark.parametrize("channels, stride", [(6, 1), (4, 1), (6, 2), (4, 2)])
def test_basic_post_activation(channels, stride):
    b = settled(block(channels, 6, stride=stride, design=BASIC))
    x = torch.randn(2, channels, 7, 7)
    h = F.relu(bn(F.conv2d(x, b.body.conv1.weight, stride=stride, padding=1), b.body.norm1))
    h = bn(F.conv2d(h, b.body.conv2.weight, padding=1), b.body.norm2)
    kept = x
    if (channels, stride) != (6, 1):
        kept = bn(F.conv2d(x, b.shortcut.conv.weight, stride=stride), b.shortcut.norm)
    torch.testing.assert_close(b(x), F.relu(h + kept))


@pytest.mark.parametrize("channels, stride", [(24, 1), (24, 2), (6, 1)])
def test_bottleneck_post_activation(channels, stride):
    b = settled(block(channels, 6, stride=stride, design=BOTTLENECK))
    x = torch.randn(2, channels, 8, 8)
    h = F.relu(bn(F.conv2d(x, b.body.conv1.weight), b.body.norm1))
    h = F.relu(bn(F.conv2d(h, b.body.conv2.weight, stride=stride, padding=1), b.body.norm2))
    h = bn(F.conv2d(h, b.body.conv3.weight), b.body.norm3)
    kept = x
    if (channels, stride) != (24, 1):
        kept = bn(F.conv2d(x, b.shortcut.conv.weight, stride=stride), b.shortcut.norm)
    torch.testing.assert_close(b(x), F.relu(h + kept))


@pytest.mark.parametrize("channels, stride", [(6, 1), (4, 1), (6, 2)])
def test_basic_pre_activation(channels, stride):
    b = settled(block(channels, 6, stride=stride, design=BASIC._replace(preact=True)))
    x = torch.randn(2, channels, 7, 7)
    z = F.relu(bn(x, b.entry.norm))
    h = F.conv2d(z, b.body.conv1.weight, stride=stride, padding=1)
    h = F.conv2d(F.relu(bn(h, b.body.norm2)), b.body.conv2.weight, padding=1)
    kept = x if (channels, stride) == (6, 1) else F.conv2d(z, b.shortcut.conv.weight, stride=stride)
    torch.testing.assert_close(b(x), h + kept)


@pytest.mark.parametrize("channels, stride", [(24, 1), (6, 2)])
def test_bottleneck_pre_activation(channels, stride):
    b = settled(block(channels, 6, stride=stride, design=BOTTLENECK._replace(preact=True)))
    x = torch.randn(2, channels, 8, 8)
    z = F.relu(bn(x, b.entry.norm))
    h = F.relu(bn(F.conv2d(z, b.body.conv1.weight), b.body.norm2))
    h = F.relu(bn(F.conv2d(h, b.body.conv2.weight, stride=stride, padding=1), b.body.norm3))
    h = F.conv2d(h, b.body.conv3.weight)
    kept = x if (channels, stride) == (24, 1) else F.conv2d(z, b.shortcut.conv.weight, stride=stride)
    torch.testing.assert_close(b(x), h + kept)


@pytest.mark.parametrize("kind, side", [("small", 32), ("imagenet", 8)])
@pytest.mark.parametrize("preact", [False, True])
def test_stem(kind, side, preact):
    made = stem(kind, 3, 8, design=BASIC._replace(preact=preact))
    assert made(torch.rand(2, 3, 32, 32)).shape == (2, 8, side, side)
    assert any(isinstance(layer, nn.ReLU) for layer in made) != preact


def test_features_that_come_out():
    stages, width = residual_stages(
        1, stem_kind="small", stem_width=4, widths=[4, 8], blocks=[1, 2], design=BOTTLENECK._replace(preact=True)
    )
    assert list(stages) == ["stem", "stage1", "stage2", "final", "pool", "flatten"]
    assert [len(stages["stage1"]), len(stages["stage2"])] == [1, 2]
    assert nn.Sequential(stages)(torch.rand(2, 1, 9, 9)).shape == (2, width) == (2, 32)
