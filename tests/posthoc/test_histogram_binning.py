"""Histogram binning: each bin says what happened in it."""

import pytest
import torch
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches, members_and_task

from levelhead.posthoc.histogram_binning import HistogramBinning
from levelhead.predictor import predict


@pytest.mark.parametrize("target", ["classes", "top"])
def test_it_helps_in_both_orders(target):
    check_it_helps(HistogramBinning(target=target))
    check_both_orders(HistogramBinning(target=target))


def test_only_the_blend_has_a_gradient():
    assert 0 < gradient_reaches(HistogramBinning()) < 0.01
    assert gradient_reaches(HistogramBinning(blend=0.0)) < 1e-12


def test_top_confidences_are_the_accuracies_of_their_bins():
    (member, *_), task = members_and_task()
    fitted = HistogramBinning(num_bins=8, target="top", blend=0.0)(member, task)
    held = predict(member, task.calibration)
    confidence, right = held.confidence, (held.label == task.calibration.y).double()
    said = predict(fitted, task.calibration).probs.gather(-1, held.label[:, None])[:, 0]
    order = confidence.argsort()
    for rows in order.chunk(8):
        torch.testing.assert_close(said[rows], right[rows].mean().expand(len(rows)))


@pytest.mark.parametrize("wrong", [{"num_bins": 0}, {"target": "each"}, {"blend": -0.5}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        HistogramBinning(**wrong)
