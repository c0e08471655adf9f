"""What every shift must do, for each file in the folder; and the parts that corruptions share."""

from typing import Any

import pytest
import torch
from shifts.oracle import pictures
from torch import Tensor
from torch.testing import assert_close

from levelhead.catalogue import parts
from levelhead.shifts._base import SMALL_SIDE, Corruption, truncated
from levelhead.shifts.gaussian_noise import GaussianNoise

SHIFTS = [spec() for spec in parts("shifts")]
CORRUPTIONS = [shift for shift in SHIFTS if isinstance(shift, Corruption)]
every_shift = pytest.mark.parametrize("shift", SHIFTS, ids=lambda s: type(s).__name__)
every_corruption = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda s: type(s).__name__)


def inputs(shift: Any, *, rows: int = 6, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return pictures(rows, channels, height, width) if shift.kind == "image" else 5 + torch.randn(rows, 4)


def apply(shift: Any, x: Tensor, severity: int, seed: int = 0) -> Tensor:
    return shift(x, severity, torch.Generator().manual_seed(seed))


def test_the_first_shifts_exist() -> None:
    names = {type(shift).__name__ for shift in SHIFTS}
    assert names >= {
        "GaussianNoise", "ShotNoise", "DefocusBlur", "Brightness", "Contrast", "Pixelate", "Rotation", "FeatureNoise"
    }  # fmt: skip


@every_shift
def test_keeps_shape_range_and_its_argument(shift: Any) -> None:
    x = inputs(shift)
    kept = x.clone()
    for severity in shift.severities:
        shifted = apply(shift, x, severity)
        assert shifted.shape == x.shape
        assert shifted.dtype == x.dtype
        assert not torch.equal(shifted, x)
        if shift.kind == "image":
            assert 0 <= shifted.min() <= shifted.max() <= 1
    assert torch.equal(x, kept)


@every_shift
def test_the_same_seed_gives_the_same_inputs(shift: Any) -> None:
    x = inputs(shift)
    severity = shift.severities[-1]
    assert torch.equal(apply(shift, x, severity), apply(shift, x, severity))


@every_shift
def test_severity_zero_is_the_identity_and_unlisted_ones_raise(shift: Any) -> None:
    x = inputs(shift)
    assert torch.equal(apply(shift, x, 0), x)
    for severity in (-1, 7, 1000):
        with pytest.raises(ValueError, match="severity"):
            apply(shift, x, severity)


@pytest.mark.parametrize("shift", [s for s in SHIFTS if s not in CORRUPTIONS], ids=lambda s: type(s).__name__)
def test_damage_grows_with_severity(shift: Any) -> None:
    """Corruptions are in test_constants.py: not all of the published ones grow."""
    x = inputs(shift, rows=24)
    furthest = {"Rotation": 90, "Translation": 6}  # beyond, a moved picture may meet itself
    severities = [s for s in shift.severities if s <= furthest.get(type(shift).__name__, s)]
    damage = [float((apply(shift, x, s) - x).abs().mean()) for s in severities]
    assert damage == sorted(damage)
    assert damage[-1] > 1.2 * damage[0] > 0


@pytest.mark.parametrize("shift", [s for s in SHIFTS if s.kind == "image"], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("channels, height, width", [(1, 28, 28), (3, 32, 32), (1, 40, 33), (3, 96, 100)])
def test_any_image_size(shift: Any, channels: int, height: int, width: int) -> None:
    x = inputs(shift, rows=2, channels=channels, height=height, width=width)
    for severity in shift.severities:
        shifted = apply(shift, x, severity)
        assert shifted.shape == x.shape
        assert 0 <= shifted.min() <= shifted.max() <= 1


@pytest.mark.parametrize("shift", [s for s in SHIFTS if s.kind == "image"], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("channels, side", [(1, 28), (3, 32), (1, 27), (3, 33)])
def test_batches_in_order_give_the_pixels_of_the_whole_split(shift: Any, channels: int, side: int) -> None:
    x = inputs(shift, rows=12, channels=channels, height=side, width=side)
    severity = shift.severities[2]
    generator = torch.Generator().manual_seed(3)
    parts_of_it = torch.cat([shift(rows, severity, generator) for rows in x.split(5)])
    # the same levels; vector instructions may round the tail of a batch otherwise
    assert (parts_of_it - apply(shift, x, severity, seed=3)).abs().max() < 1e-6


@pytest.mark.parametrize("shift", [s for s in SHIFTS if s.kind == "image"], ids=lambda s: type(s).__name__)
def test_normalised_images_are_refused(shift: Any) -> None:
    for wrong in (2 * inputs(shift), inputs(shift) - 0.5, torch.full((1, 3, 8, 8), torch.nan)):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            apply(shift, wrong, shift.severities[0])


@pytest.mark.parametrize("on", ["cpu", "cuda"])
def test_every_shift_runs_on_cuda_with_either_generator(on: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for shift in SHIFTS:
        x = inputs(shift)
        severity = shift.severities[1]
        there = shift(x.cuda(), severity, torch.Generator(on).manual_seed(0))
        assert there.is_cuda
        if on == "cpu":
            assert (there.cpu() - apply(shift, x, severity)).abs().max() < 1.1 / 255


@every_corruption
def test_constants_follow_the_size(corruption: Any) -> None:
    def with_constants(small: Any, large: Any) -> Any:
        return type(corruption)(small=small, large=large)

    for side, wanted in ((SMALL_SIDE, corruption.small), (SMALL_SIDE + 1, corruption.large)):
        x = inputs(corruption, rows=2, height=side, width=side + 10)
        both = with_constants(wanted, wanted)
        assert torch.equal(apply(corruption, x, 3), apply(both, x, 3))
        swapped = with_constants(corruption.large, corruption.small)
        assert not torch.equal(apply(corruption, x, 3), apply(swapped, x, 3))


@every_corruption
def test_gives_8_bit_images(corruption: Any) -> None:
    levels = 255 * apply(corruption, inputs(corruption), 3)
    assert_close(levels, levels.round(), rtol=0, atol=1e-4)


@every_corruption
def test_wants_a_constant_for_every_severity(corruption: Any) -> None:
    with pytest.raises(ValueError, match="5 constants"):
        type(corruption)(small=corruption.small[:2])


def test_truncation_keeps_exact_levels_and_cuts_the_rest() -> None:
    levels = torch.arange(256) / 255
    assert torch.equal(truncated(levels), levels)
    assert_close(truncated(levels + 0.9 / 255), levels)
    assert truncated(torch.tensor([-1.0, 2.0])).tolist() == [0, 1]


def test_the_two_sets_of_constants_differ_by_what_was_published() -> None:
    x = torch.full((4, 3, 100, 100), 0.5)
    noisy = apply(GaussianNoise(), x, 1)
    assert float(noisy.std()) == pytest.approx(0.08, rel=0.03)
    assert float(apply(GaussianNoise(), x[..., :32, :32], 1).std()) == pytest.approx(0.04, rel=0.03)
