import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from levelhead.metrics.smooth_calibration import smooth_ece, smooth_error, smooth_reliability


def brute_force(confidence: Tensor, outcome: Tensor, width: float, points: int = 4001) -> float:
    """The reflected kernel written out as a sum of images, no grid for the residuals, no Fourier transform."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)[:, None]
    kernel = torch.zeros(points, len(confidence), dtype=torch.float64)
    for shift in range(-math.ceil(4 * width) - 2, math.ceil(4 * width) + 3):
        for image in (confidence + 2 * shift, -confidence + 2 * shift):
            kernel += torch.exp(-0.5 * ((t - image) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    residual = (kernel * (outcome - confidence)).mean(-1).abs()
    return float(torch.trapezoid(residual, dx=1 / (points - 1)))


def sample(n: int = 200, seed: int = 0, power: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator, dtype=torch.float64)
    return confidence, (torch.rand(n, generator=generator, dtype=torch.float64) < confidence**power).double()


@pytest.mark.parametrize("width", [0.01, 0.05, 0.3, 1.0])
def test_equals_the_reflected_sum(width: float) -> None:
    confidence, outcome = sample(power=2.0)
    confidence[:3] = torch.tensor([0.0, 1.0, 0.5])
    assert float(smooth_error(confidence, outcome, width=width)) == pytest.approx(
        brute_force(confidence, outcome, width), abs=1e-4
    )


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_width_is_the_answer(power: float) -> None:
    confidence, outcome = sample(500, power=power)
    value = float(smooth_error(confidence, outcome))
    assert value == pytest.approx(brute_force(confidence, outcome, value), abs=1e-4)


def test_wide_kernels_see_only_the_mean() -> None:
    confidence, outcome = sample(power=2.0)
    mean = float((outcome - confidence).mean().abs())
    assert float(smooth_error(confidence, outcome, width=50.0)) == pytest.approx(mean, abs=1e-9)


def test_soft_outcomes_equal_to_the_confidence_are_perfect() -> None:
    confidence, _ = sample()
    assert float(smooth_error(confidence, confidence)) < 1e-9


@given(
    rows=st.lists(st.tuples(st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1), st.booleans()), min_size=1, max_size=20)
)
def test_lies_between_the_mean_residual_and_one(rows: list[tuple[float, bool]]) -> None:
    confidence = torch.tensor([c for c, _ in rows], dtype=torch.float64)
    outcome = torch.tensor([h for _, h in rows])
    value = float(smooth_error(confidence, outcome))
    assert float((outcome.double() - confidence).mean().abs()) - 1e-6 <= value <= 1


def test_falls_with_the_width() -> None:
    confidence, outcome = sample(power=2.0)
    values = [float(smooth_error(confidence, outcome, width=w)) for w in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)]
    assert all(wide <= narrow + 1e-12 for narrow, wide in itertools.pairwise(values))
    assert values[0] > values[-1]
    with pytest.raises(ValueError, match="width"):
        smooth_error(confidence, outcome, width=-1.0)


@pytest.mark.parametrize("n, expected", [(500, 0.040), (2000, 0.025)])
def test_floor_on_calibrated_classes(n: int, expected: float) -> None:
    values = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        log_probs = (2 * torch.randn(n, 10, generator=generator)).log_softmax(-1)
        values.append(float(smooth_ece(log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0])))
    assert sum(values) / 10 == pytest.approx(expected, rel=0.15)


def test_the_curve_is_the_kernel_regression() -> None:
    confidence, outcome = sample(power=2.0)
    found = smooth_reliability(confidence, outcome, width=0.05)
    for place in (0, 700, 2048, 4096):
        t = float(found.confidence[place])
        kernel = torch.zeros(200, dtype=torch.float64)
        for shift in range(-2, 3):
            for image in (confidence + 2 * shift, -confidence + 2 * shift):
                kernel += torch.exp(-0.5 * ((t - image) / 0.05) ** 2) / (0.05 * math.sqrt(2 * math.pi))
        assert float(found.density[place]) == pytest.approx(float(kernel.mean()), rel=1e-4)
        assert float(found.accuracy[place]) == pytest.approx(float((kernel * outcome).sum() / kernel.sum()), abs=1e-4)
    assert float(torch.trapezoid(found.density, found.confidence)) == pytest.approx(1, abs=1e-6)


def test_the_curve_stops_where_nobody_is() -> None:
    confidence = 0.9 + 0.1 * torch.rand(300, dtype=torch.float64)
    found = smooth_reliability(confidence, torch.rand(300) < confidence)
    assert found.accuracy[:1000].isnan().all()
    assert not found.accuracy[-400:].isnan().any()
