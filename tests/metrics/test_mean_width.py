"""Width against coverage, by brute force over c."""

import pytest
import torch

from levelhead.metrics.mean_width import least_nlpd, width_area, width_curve


def numbers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, y = torch.randn(2, 31, 1, generator=generator, dtype=torch.float64)
    return mean, 0.1 + torch.rand(31, 1, generator=generator, dtype=torch.float64), y


def test_every_point_is_the_narrowest_with_its_coverage():
    mean, std, y = numbers()
    curve = width_curve(mean, std, y=y)
    for coverage, width in zip(curve.coverage, curve.width, strict=True):
        c = float(width) / float(2 * std.mean())
        inside = ((y - mean).abs() <= c * std * (1 + 1e-12)).double().mean()
        assert float(inside) == pytest.approx(float(coverage))
        assert float(((y - mean).abs() <= c * std * (1 - 1e-9)).double().mean()) < float(coverage)


def test_the_area_has_a_closed_form_and_forgets_factors():
    mean, std, y = numbers()
    area = width_area(mean, std, y=y)
    assert area == pytest.approx(float(2 * std.mean() * ((y - mean).abs() / std).mean()))
    assert width_area(mean, 7 * std, y=y) == pytest.approx(area)
    assert width_area(mean, (y - mean).abs() + 1e-9, y=y) < area  # nothing is narrower than knowing the errors


def test_the_least_nlpd_is_the_least():
    mean, std, y = numbers()
    grid = torch.logspace(-2, 2, 4001, dtype=torch.float64)
    losses = [-torch.distributions.Normal(mean, c * std).log_prob(y).mean() for c in grid]
    assert least_nlpd(mean, std, y=y) == pytest.approx(float(min(losses)), abs=1e-5)


def test_no_uncertainty_at_all_is_refused():
    mean, std, y = numbers()
    with pytest.raises(ValueError, match="above 0"):
        least_nlpd(mean, 0 * std, y=y)
