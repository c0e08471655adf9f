import pytest
import torch
from torch.testing import assert_close

from levelhead.metrics.ranking import auroc, average_precision, fpr_at_recall
from levelhead.metrics.score_histogram import ScoreHistogram


def scored(n=5000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n, generator=generator) < 0.2
    return torch.sigmoid(torch.randn(n, generator=generator) + positive), positive


def test_counts_give_the_sorted_metrics():
    score, positive = scored()
    histogram = ScoreHistogram()
    for rows in torch.arange(5000).split(700):
        histogram.update(score[rows], positive[rows])
    found = histogram.compute()
    assert_close(found.auroc, auroc(score, positive), rtol=0, atol=1e-4)
    assert_close(found.average_precision, average_precision(score, positive), rtol=0, atol=1e-3)
    assert_close(found.fpr, fpr_at_recall(score, positive), rtol=0, atol=1e-3)


def test_exact_where_bins_hold_one_score_each():
    score, positive = scored(400)
    coarse = (score * 63).round() / 64  # in the middle of nothing: the lower edges of 64 bins
    histogram = ScoreHistogram(bins=64)
    histogram.update(coarse.reshape(4, 10, 10), positive.reshape(4, 10, 10))
    found = histogram.compute(recall=0.8)
    assert_close(found.auroc, auroc(coarse, positive))
    assert_close(found.average_precision, average_precision(coarse, positive))
    assert_close(found.fpr, fpr_at_recall(coarse, positive, recall=0.8))


def test_pieces_add_up_and_scores_outside_count_at_the_ends():
    one, other = ScoreHistogram(-20, 0), ScoreHistogram(-20, 0)
    one.update(torch.tensor([-25.0, -1.0]), torch.tensor([False, True]))
    other.update(torch.tensor([3.0]), torch.tensor([True]))
    one.merge(other)
    assert float(one.compute().auroc) == 1
    assert float(one.totals["negative"][0]) == 1
    assert float(one.totals["positive"][-1]) == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="low"):
        ScoreHistogram(1.0, 0.0)
    with pytest.raises(ValueError, match="NaN"):
        ScoreHistogram().update(torch.tensor([torch.nan]), torch.tensor([True]))
    histogram = ScoreHistogram()
    histogram.update(*scored(50))
    with pytest.raises(ValueError, match="recall"):
        histogram.compute(recall=0.0)
