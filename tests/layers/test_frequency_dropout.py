"""What is drawn: shares, distributions, what layers have in common, and what a seed decides."""

import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.declared import Pace
from levelhead.layers.frequency_dropout import (
    Draw,
    Family,
    FrequencyFilters,
    SampledFrequencyFilters,
    SharedSeeds,
    drawn_widths,
)
from levelhead.layers.frequency_filters import identity_kernels, kernels_of

RF = {"gaussian": Family(0.2, 1.0, 0.4), "log": Family(0.2, 3.0, 0.5), "gabor": Family(0.0, 1.0, 0.8)}


def layer(group: str = "a", channels: int = 64, stored: bool = False, **options: object) -> FrequencyFilters:
    draw = Draw(RF, **options)
    return FrequencyFilters(channels, draw, group=group, size=3, padding="zero", stored=stored)


def family(kernels: torch.Tensor) -> str:
    """Which family kernels are of, by their sums and their rows."""
    filtered = kernels[(kernels != identity_kernels(1, 3)).flatten(1).any(1), 0]
    if torch.allclose(filtered[:, 0], filtered[:, 1]):
        return "gabor"
    return (
        "gaussian"
        if (filtered >= 0).all()
        and bool((filtered[:, 0, 1] ** 2 - filtered[:, 0, 0] * filtered[:, 1, 1]).abs().max() < 1e-9)
        else "log"
    )


@pytest.mark.parametrize("name", RF)
def test_widths_are_uniform_and_the_rest_is_left_alone(name: str) -> None:
    own, n = RF[name], 10_000
    sigma = drawn_widths(n, own, torch.Generator().manual_seed(1))
    left = float((sigma == 0).double().mean())
    assert abs(left - own.p) < 4 * math.sqrt(own.p * (1 - own.p) / n)
    drawn = ((sigma[sigma > 0] - own.smallest) / (own.largest - own.smallest)).sort().values
    assert 0 <= float(drawn[0]) <= float(drawn[-1]) <= 1
    distance = (drawn - torch.linspace(0, 1, len(drawn))).abs().max()
    assert float(distance) < 1.95 / math.sqrt(len(drawn))  # Kolmogorov-Smirnov, one in a thousand


def test_nothing_is_filtered_where_p_is_one() -> None:
    draw = Draw({"log": Family(0.2, 3.0, 1.0)})
    still = FrequencyFilters(8, draw, group="a", size=3, padding="zero", stored=False)
    still.pace(Pace(0, 0, 5, 6))
    assert still.idle
    assert torch.equal(still.kernel, identity_kernels(8, 3).float())


def test_families_are_drawn_with_equal_probability_one_for_the_whole_network() -> None:
    one, other = layer("a"), layer("b", 32)
    drawn = [(family(one.kernels(seed)), family(other.kernels(seed))) for seed in range(300)]
    assert all(first == second for first, second in drawn)
    for name in RF:
        assert abs(sum(first == name for first, _ in drawn) - 100) < 4 * math.sqrt(300 * 2 / 9), name
    apart = [layer(group, type_per="layer") for group in "ab"]
    assert len({tuple(family(each.kernels(seed)) for each in apart) for seed in range(40)}) > 3


def test_a_group_shares_its_widths_and_other_groups_have_their_own() -> None:
    assert torch.equal(layer("a").kernels(3), layer("a").kernels(3))
    assert not torch.equal(layer("a").kernels(3), layer("b").kernels(3))
    assert not torch.equal(layer("a").kernels(3), layer("a").kernels(4))


@pytest.mark.parametrize("resample", ["epoch", "step"])
def test_filters_change_with_the_epoch_or_the_step(resample: str) -> None:
    each = layer(resample=resample)
    seen = []
    for epoch in range(2):
        for step in range(2):
            each.pace(Pace(epoch, step, 10 + epoch, 100 * epoch + step))
            seen.append(each.kernel.clone())
    assert torch.equal(seen[0], seen[1]) is (resample == "epoch")
    assert not torch.equal(seen[1], seen[2])


def test_annealing_leaves_fewer_and_fewer_channels_filtered() -> None:
    each = layer(channels=4000, anneal=(2, 6))
    shares = []
    for epoch in range(8):
        each.pace(Pace(epoch, 0, 7, 8))  # the same seed: what is left out first is left out later, too
        shares.append(float((each.kernel != identity_kernels(1, 3)).flatten(1).any(1).double().mean()))
    assert shares[0] == shares[1] == shares[2] > 0.15
    for place, expected in ((3, 0.75), (4, 0.5), (5, 0.25)):
        assert shares[place] == pytest.approx(expected * shares[0], abs=0.03)
    assert shares[6] == shares[7] == 0
    assert each.idle


def test_prediction_with_the_last_filters_or_with_none() -> None:
    x = torch.randn(3, 64, 6, 6)
    for stored in (False, True):
        each = layer(stored=stored)
        each.pace(Pace(0, 0, 1, 1))
        trained = each(x)
        assert not torch.equal(trained, x)
        assert torch.equal(each.eval()(x), trained if stored else x)


def test_samples_have_filters_of_their_own_which_layers_of_a_group_share() -> None:
    shared, draw = SharedSeeds(), Draw(RF)
    first, second = (
        SampledFrequencyFilters(64, draw, group="a", size=3, padding="zero", shared=shared, leads=leads).eval()
        for leads in (True, False)
    )
    x = torch.randn(2, 64, 6, 6)
    assert first(x) is x
    rows = x.repeat(3, 1, 1, 1)
    for each in (first, second):
        each.sampling = True
        each.expect(3, 2)
    torch.manual_seed(0)
    y = first(rows)
    assert torch.equal(second(rows), y)
    assert len(shared.seeds) == 3
    for k, seed in enumerate(shared.seeds):
        kernels = first.kernels(seed).float()
        assert_close(y[2 * k : 2 * k + 2], first.filtered(x, kernels))
    torch.manual_seed(0)
    first.expect(2, 2)
    assert torch.equal(first(rows[:4]), y[:4])  # the stream is used sample by sample
    assert not torch.equal(first(rows[:4]), y[:4])


def test_random_families_spread_gains_more_than_gaussians_alone() -> None:
    """White noise: the energy above half the Nyquist frequency falls under Gaussians; all three spread gains more."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, 32, 32, generator=generator)
    across = torch.fft.fftfreq(32)
    high = (across[:, None].square() + across[None].square()).sqrt() > 0.25

    def energy(z: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(z).abs().square()[..., high].mean((0, -1))

    def gains(families: dict[str, Family]) -> torch.Tensor:
        each = FrequencyFilters(64, Draw(families), group="a", size=3, padding="zero", stored=False)
        kernels = [each.kernels(seed).float() for seed in range(12)]
        return torch.cat([energy(each.filtered(x, kernel)) / energy(x) for kernel in kernels])

    blurred, mixed = gains({"gaussian": RF["gaussian"]}), gains(RF)
    assert blurred.mean() < 0.9
    assert mixed.std() > 1.5 * blurred.std()


def test_kernels_are_those_of_the_family() -> None:
    draw = Draw({"gabor": RF["gabor"]}, log_mode="proper")
    each = FrequencyFilters(16, draw, group="a", size=5, padding="zero", stored=False)
    kernels = each.kernels(3)
    assert kernels.shape == (16, 1, 5, 5)
    assert family_rows_alike(kernels)
    sharp = FrequencyFilters(
        16, Draw({"log": RF["log"]}, log_mode="proper"), group="a", size=5, padding="zero", stored=False
    )
    assert (sharp.kernels(3)[:, 0, 2, 2] >= 1).all()
    assert kernels_of("log", torch.tensor([1.0]), 5, log_mode="proper")[0, 0, 2, 2] > 1


def family_rows_alike(kernels: torch.Tensor) -> bool:
    filtered = kernels[(kernels != identity_kernels(1, kernels.shape[-1])).flatten(1).any(1), 0]
    return len(filtered) > 0 and torch.allclose(filtered, filtered[:, :1].expand_as(filtered))
