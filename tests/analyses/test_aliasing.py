"""The aliasing measure against published and closed-form numbers, and where a network steps over pixels."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.analyses.aliasing import aliasing_by_layer, aliasing_measure
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical, Signature
from levelhead.tasks.stripes import stripes

WAYS = {
    "stride": lambda z: z[..., ::2, ::2],
    "max": lambda z: F.max_pool2d(z, 2),
    "avg": lambda z: F.avg_pool2d(z, 2),
}


def low_cut(z: torch.Tensor) -> torch.Tensor:
    """Half the frequencies of an even square map, by indices written out."""
    size = z.shape[-1]
    kept = [*range(size // 4), *range(size - size // 4, size)]
    spectrum = torch.fft.fft2(z)[..., kept, :][..., kept]
    return torch.fft.ifft2(spectrum).real / 4


def white() -> torch.Tensor:
    return torch.randn(16, 8, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize("way, published", [("stride", 0.0317), ("max", 0.0230), ("avg", 0.0087)])
def test_white_noise_has_the_published_aliasing(way, published):
    assert float(aliasing_measure(white(), WAYS[way])) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("on", ["magnitude", "power", "complex"])
@pytest.mark.parametrize("p", [1, 2])
def test_low_cut_pooling_has_none_but_at_the_highest_frequency(p, on):
    z = white()
    assert float(aliasing_measure(z, low_cut, p=p, on=on)) < 1e-15
    assert float(aliasing_measure(z, low_cut, p=p, on=on, nyquist=True)) > 1e-5


def test_striding_a_map_without_high_frequencies_has_none():
    smooth = F.interpolate(torch.randn(4, 3, 1, 1, dtype=torch.float64), size=32) + wave(3) + wave(7)
    assert float(aliasing_measure(smooth, WAYS["stride"], on="complex")) < 1e-15
    assert float(aliasing_measure(smooth + wave(9), WAYS["stride"])) > 1e-3


def test_a_wave_that_is_too_fast_is_counted_where_it_folds():
    # cos(2 pi 13 t / 32), every second pixel: a wave of frequency 3 in 16, one half at each of two bins of 15 x 15
    assert float(aliasing_measure(wave(13), WAYS["stride"])) == pytest.approx(2 * 0.5 / 15**2, rel=1e-9)
    assert float(aliasing_measure(wave(13), WAYS["stride"], p=2)) == pytest.approx(math.sqrt(2 * 0.25) / 15, rel=1e-9)


def wave(frequency: int) -> torch.Tensor:
    across = torch.cos(2 * math.pi * frequency * torch.arange(32, dtype=torch.float64) / 32)
    return across.expand(1, 1, 32, 32)


def test_it_grows_with_the_map_and_the_relative_one_does_not():
    z = white()
    one = {on: aliasing_measure(z, WAYS["stride"], on=on) for on in ("magnitude", "power")}
    assert_close(aliasing_measure(3 * z, WAYS["stride"]), 3 * one["magnitude"])
    assert_close(aliasing_measure(3 * z, WAYS["stride"], on="power"), 9 * one["power"])
    relative = aliasing_measure(z, WAYS["stride"], relative=True)
    assert_close(aliasing_measure(3 * z, WAYS["stride"], relative=True), relative)


@pytest.mark.parametrize("size", [(7, 9), (12, 5), (6, 6)])
def test_any_size_goes(size):
    z = torch.randn(2, 3, *size)
    assert float(aliasing_measure(z, lambda z: z[..., ::3, ::2])) > 0
    assert float(aliasing_measure(z, lambda z: z, on="complex", nyquist=True)) == 0


def test_it_can_be_differentiated():
    z = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: aliasing_measure(z, WAYS["avg"], on="power"), (z,))


@pytest.mark.parametrize("how", [{"p": 3}, {"on": "phase"}])
def test_bad_arguments_are_named(how):
    with pytest.raises(ValueError, match=f"aliasing_measure: {next(iter(how))}"):
        aliasing_measure(white()[:1], WAYS["avg"], **how)
    with pytest.raises(ValueError, match="downsample"):
        aliasing_measure(white()[:1], lambda z: F.interpolate(z, scale_factor=2))


def test_every_strided_layer_of_a_resnet_is_measured_once():
    signature = Signature(input_shape=(3, 16, 16), num_outputs=4, likelihood=Categorical(4))
    network = ResNet(depth=8, width=4)(signature)
    x = torch.rand(5, 3, 16, 16)
    found = aliasing_by_layer(network, x)
    wanted = [f"stage{k}.0.{layer}" for k in (2, 3) for layer in ("body.conv1", "shortcut.conv")]
    assert list(found) == wanted
    assert all(layer.absolute > 0 and layer.rows == 5 for layer in found.values())
    # the shortcut of stage 2 reads what stage 1 returns: by hand
    network.eval()
    with torch.no_grad():
        z = network.features[:3](x)
        conv = network.get_submodule("features.stage2.0.shortcut.conv")
        dense = F.conv2d(z, conv.weight)
    by_hand = aliasing_measure(dense, WAYS["stride"])
    assert found["stage2.0.shortcut.conv"].absolute == pytest.approx(float(by_hand), rel=1e-6)


def test_pools_and_the_order_and_a_module_of_anybody():
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 2, 3, stride=2))
    module.append(nn.AdaptiveAvgPool2d(1))
    x = torch.randn(6, 1, 16, 16)
    found = aliasing_by_layer(module.train(), x)
    assert list(found) == ["2", "3"]
    with torch.no_grad():
        by_hand = aliasing_measure(module[:2](x), WAYS["avg"])
    assert found["2"].absolute == pytest.approx(float(by_hand), rel=1e-6)
    assert module.training
    assert not any(child._forward_hooks for child in module)


def test_nothing_steps_in_a_network_of_features():
    assert aliasing_by_layer(MLP(hidden=(4,))(stripes(12).signature), stripes(12).test.x.float()[:4]) == {}
