"""Fourier profiles: invariances, white noise, the box's own response, and the signs of convolutions and attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.analyses.blocks import Block
from levelhead.analyses.fourier import Profile, change_by_kind, delta_log_amplitude, fourier_profile
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical, Signature

EULER = 0.5772156649015329


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_white_noise_rises_by_what_the_logarithm_of_a_real_and_a_complex_normal_differ():
    profile = delta_log_amplitude(maps(64, 64, 32, 32)).mean(0)
    # E log |N(0, 1)| = -(log 2 + gamma) / 2, of a complex one with E|z|^2 = 1: -gamma / 2
    wanted = -EULER / 2 + (math.log(2) + EULER) / 2
    assert wanted == pytest.approx(0.3466, abs=1e-4)
    assert float(profile[0]) == 0
    assert_close(profile[1:], torch.full((15,), wanted, dtype=torch.float64), atol=0.06, rtol=0)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_box_blur_adds_its_own_response(k):
    z = 100 * maps(3, 2, 32, 32)
    kernel = torch.full((1, 1, k, k), 1 / k**2, dtype=torch.float64)
    padded = F.pad(z, (k - 1, 0, k - 1, 0), mode="circular")
    blurred = F.conv2d(padded.flatten(0, 1)[:, None], kernel).view_as(z)
    u = 2 * math.pi * torch.arange(16, dtype=torch.float64) / 32
    response = (torch.sin(k * u / 2) / (k * torch.sin(u / 2))).abs()
    response[0] = 1
    assert_close(
        delta_log_amplitude(blurred) - delta_log_amplitude(z), (2 * response.log()).expand(3, -1), atol=2e-4, rtol=0
    )


def test_it_does_not_see_size_shifts_and_the_order_of_channels():
    z = maps(2, 3, 16, 12)
    before = delta_log_amplitude(z)
    assert before.shape == (2, 6)
    assert_close(delta_log_amplitude(7 * z), before, atol=1e-5, rtol=0)
    assert_close(delta_log_amplitude(z.roll((3, 5), (2, 3))), before)
    assert_close(delta_log_amplitude(z[:, [2, 0, 1]]), before)


def test_a_window_mean_lowers_it_and_random_convolutions_raise_it():
    """The training-free signs of the paper: attention that averages its window, and a convolution with ReLU."""
    smooth = F.interpolate(torch.randn(20, 3, 8, 8), size=32, mode="bicubic")
    images = 0.5 + 0.25 * smooth + 0.02 * torch.randn(20, 3, 32, 32)  # as pictures: less of the high frequencies
    first, second = (
        nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()) for channels in (3, 32)
    )
    with torch.no_grad():
        once = first(images)
        twice = second(once)
        averaged = F.interpolate(F.avg_pool2d(twice, 4), scale_factor=4)
    ends = [float(delta_log_amplitude(z).mean(0)[-1]) for z in (images, once, twice, averaged, (twice + averaged) / 2)]
    assert ends[0] < ends[1] < ends[2]
    assert ends[3] < ends[4] < ends[2]


def test_a_network_is_read_block_by_block_and_batches_do_not_matter():
    signature = Signature(input_shape=(3, 16, 16), num_outputs=4, likelihood=Categorical(4))
    network = ResNet(depth=8, width=4)(signature)
    x = torch.rand(10, 3, 16, 16)
    found = fourier_profile(network, x)
    assert [p.block.name for p in found] == ["stem", "stage1.0", "stage2.0", "stage3.0"]
    assert [len(p.amplitude) for p in found] == [8, 8, 4, 2]
    for one, other in zip(found, fourier_profile(network, x, batch_size=3), strict=True):
        assert_close(torch.tensor(one.amplitude), torch.tensor(other.amplitude))
        assert one.rows == other.rows == 10
    network.eval()
    with torch.no_grad():
        z = network.features[:3](x)
    assert_close(torch.tensor(found[1].amplitude), delta_log_amplitude(z).mean(0).float(), atol=1e-5, rtol=0)


def test_between_two_frequencies_it_is_linear_and_the_last_one_holds_beyond():
    profile = made("a", "stem", (0.0, -1.0, -3.0, -4.0))
    assert profile.at(0) == 0
    assert profile.at(0.125) == pytest.approx(-0.5)
    assert profile.at(0.5) == pytest.approx(-3)
    assert profile.at(1) == -4


def test_changes_are_taken_across_blocks_that_keep_the_size():
    profiles = [
        made("a", "stem", (0.0, -4.0)),
        made("b", "convolution", (0.0, -3.0)),
        made("c", "attention", (0.0, -3.5)),
        made("d", "convolution", (0.0, -1.0, -1.0)),
        made("e", "convolution", (0.0, -1.0, -0.8)),
    ]
    assert change_by_kind(profiles) == pytest.approx({"convolution": (1.0 + 0.2) / 2, "attention": -0.5})


def made(name: str, kind: str, amplitude: tuple[float, ...]) -> Profile:
    steps = tuple(k / len(amplitude) for k in range(len(amplitude)))
    return Profile(Block(name, kind, name, "behind"), steps, amplitude, 1)
