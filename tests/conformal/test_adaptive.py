"""Adaptive conformal inference: its update, and its promise for any stream."""

import pytest
import torch

from levelhead.conformal.adaptive import AdaptiveAlpha
from levelhead.conformal.ranks import threshold


def test_it_moves_by_its_rate():
    level = AdaptiveAlpha(alpha=0.1, rate=0.05)
    assert level.level == 0.1
    assert level.update(True) == pytest.approx(0.1 - 0.05 * 0.9)
    assert level.update(False) == pytest.approx(0.1 - 0.05 * 0.9 + 0.05 * 0.1)
    assert level.error_rate == 0.5


def test_on_a_stream_that_drifts_the_error_rate_holds():
    """Scores grow while the calibration scores stay: fixed thresholds fail, adaptive ones keep the rate."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(500, generator=generator).double()
    adaptive, fixed, steps = AdaptiveAlpha(alpha=0.1, rate=0.02), 0, 3000
    for t in range(steps):
        new = float(torch.randn((), generator=generator)) * (1 + 2 * t / steps)
        level = adaptive.level
        limit = -torch.inf if level >= 1 else torch.inf if level <= 0 else float(threshold(scores, level))
        adaptive.update(new > limit)
        fixed += new > float(threshold(scores, 0.1))
    assert fixed / steps > 0.18
    assert abs(adaptive.error_rate - 0.1) <= (0.9 + 0.02) / (0.02 * steps)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="alpha"):
        AdaptiveAlpha(alpha=1.5)
    with pytest.raises(ValueError, match="rate"):
        AdaptiveAlpha(rate=0.0)
