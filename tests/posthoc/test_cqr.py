"""Conformal intervals: their law of coverage for each score, and what they are made of."""

import math

import pytest
import torch
from posthoc.covered import covered, follows_the_beta, targets
from posthoc.small import Table, blobs, mlp, tabled

from levelhead.metrics.regression import mixture_quantile
from levelhead.posthoc.cqr import CQR, SCORES, at_levels
from levelhead.posthoc.variance_scaling import VarianceScaling
from levelhead.predictive import GaussianMixture
from levelhead.predictor import Point, predict
from levelhead.types import CannotCompose


def made(step, seed=0):
    table, y = targets(seed)
    task = tabled(y, (99, 400))
    return table, task, predict(step(table, task), task.test)


@pytest.mark.parametrize("score", SCORES)
def test_coverage_has_its_law(score):
    follows_the_beta(covered(CQR(score=score), targets), 0.1)


def test_quantiles_are_moved_by_the_threshold():
    table, task, belief = made(CQR())
    held = predict(table, task.calibration)

    def sides(b):
        return [
            mixture_quantile(b.means, b.variances, level=level, log_weights=b.log_weights) for level in (0.05, 0.95)
        ]

    low, high = sides(held)
    y = task.calibration.y
    q = torch.maximum(low - y, y - high)[:, 0].sort().values[89]
    low, high = sides(predict(table, task.test))
    torch.testing.assert_close(belief.intervals, torch.stack([low - q, high + q], -1))


def test_widths_follow_their_score():
    _, _task, absolute = made(CQR(score="absolute"))
    width = (absolute.intervals[..., 1] - absolute.intervals[..., 0])[:, 0]
    torch.testing.assert_close(width, width[:1].expand(len(width)))
    _, _, normalised = made(CQR(score="normalised"))
    ratio = (normalised.intervals[..., 1] - normalised.intervals[..., 0]) / normalised.stddev
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


@pytest.mark.parametrize("score", SCORES)
def test_intervals_are_nested_in_alpha_and_infinite_for_few_rows(score):
    if score != "quantiles":  # its quantiles move with alpha, so only its coverage is nested
        _, _, wide = made(CQR(0.05, score))
        _, _, narrow = made(CQR(0.3, score))
        assert (wide.intervals[..., 0] <= narrow.intervals[..., 0]).all()
        assert (wide.intervals[..., 1] >= narrow.intervals[..., 1]).all()
    _, _, all_there_is = made(CQR(0.005, score))
    assert all_there_is.intervals[..., 0].eq(-math.inf).all()
    assert all_there_is.intervals[..., 1].eq(math.inf).all()


def test_levels_are_inverted():
    mixture = GaussianMixture(torch.randn(3, 20, 1).double(), torch.rand(3, 20, 1).double() + 0.1)
    levels = torch.linspace(0.01, 0.99, 20).double()[:, None]
    found = at_levels(mixture, levels)
    for row, level in enumerate(levels[:, 0].tolist()):
        expected = mixture_quantile(mixture.means[:, row], mixture.variances[:, row], level=level)
        torch.testing.assert_close(found[row], expected)


def test_each_target_has_its_own_threshold():
    table, y = targets(0)
    both = Table(means=table.means.expand(-1, -1, 2), variances=table.variances.expand(-1, -1, 2))
    scaled = torch.cat([y, 5 * y], -1)
    task = tabled(scaled, (99, 400))
    intervals = predict(CQR(score="absolute")(both, task), task.test).intervals
    alone = predict(CQR(score="absolute")(table, tabled(y, (99, 400))), task.test).intervals
    torch.testing.assert_close(intervals[:, :1], alone)
    assert (intervals[:, 1].diff() > intervals[:, 0].diff()).all()


def test_refusals_say_what_to_write():
    table, task, _ = made(CQR())
    with pytest.raises(CannotCompose, match="last"):
        CQR()(CQR()(table, task), task)
    with pytest.raises(CannotCompose, match="shared_calibration"):
        CQR()(VarianceScaling()(table, task), task)
    with pytest.raises(CannotCompose, match="last"):
        VarianceScaling()(CQR()(table, task), task)
    with pytest.raises(CannotCompose, match="APS"):
        CQR()(Point(mlp(blobs())), blobs())
    with pytest.raises((ValueError, TypeError), match="score"):
        CQR(score="width")
