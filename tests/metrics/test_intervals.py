import numpy as np
import pytest
import scoringrules
import torch
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from levelhead.metrics.intervals import interval_score, normalised_width, pinball, weighted_interval_score
from levelhead.metrics.regression import crps

Y = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Q = torch.randn(50, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_pinball_agrees_with_scikit_learn(level):
    assert float(pinball(Q, y=Y, level=level)) == pytest.approx(mean_pinball_loss(Y, Q, alpha=level))


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_score_agrees_with_scoringrules_and_pinball(level):
    lower, upper, tail = Q - 0.7, Q + 0.4, (1 - level) / 2
    ours = interval_score(lower, upper, y=Y, level=level)
    theirs = scoringrules.interval_score(Y.numpy(), lower.numpy(), upper.numpy(), 1 - level)
    assert float(ours) == pytest.approx(theirs.mean())
    ends = pinball(lower, y=Y, level=tail) + pinball(upper, y=Y, level=1 - tail)
    assert float(ours) == pytest.approx(float(2 / (1 - level) * ends))


def test_weighted_interval_score_agrees_with_scoringrules_but_for_its_median():
    """scoringrules 0.10 adds the median itself where the definition has its distance from y."""
    levels = (0.5, 0.8, 0.95)
    half = [0.5, 1.0, 1.5]
    lower, upper = [Q - h for h in half], [Q + h for h in half]
    ours = weighted_interval_score(Q, lower, upper, y=Y, levels=levels)
    theirs = scoringrules.weighted_interval_score(
        Y[:, 0].numpy(),
        Q[:, 0].numpy(),
        torch.cat(lower, dim=1).numpy(),
        torch.cat(upper, dim=1).numpy(),
        np.array([1 - level for level in levels]),
    )
    mended = theirs.mean() + 0.5 * float(((Y - Q).abs() - Q).mean()) / 3.5
    assert float(ours) == pytest.approx(mended)


def test_many_intervals_come_near_the_crps():
    levels = [k / 200 for k in range(1, 200)]
    z = norm.ppf([(1 + level) / 2 for level in levels])
    ours = weighted_interval_score(Q, [Q - float(w) for w in z], [Q + float(w) for w in z], y=Y, levels=levels)
    assert float(ours) == pytest.approx(float(crps(Q[None], torch.ones_like(Q)[None], y=Y)), rel=1e-2)


def test_a_right_interval_scores_its_width():
    assert float(interval_score(Y - 1, Y + 2, y=Y)) == pytest.approx(3)
    assert float(normalised_width(Y - 1, Y + 2, y=Y)) == pytest.approx(3 / float(Y.max() - Y.min()))


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="level"):
        pinball(Q, y=Y, level=1.0)
    with pytest.raises(ValueError, match="inside out"):
        interval_score(Q + 1, Q, y=Y)
    with pytest.raises(ValueError, match="levels"):
        weighted_interval_score(Q, [Q], [Q], y=Y, levels=(0.5, 0.9))
    with pytest.raises(ValueError, match="range"):
        normalised_width(Q, Q, y=torch.zeros(50, 1))
