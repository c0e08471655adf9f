"""The order statistic: exact ranks, infinite thresholds, weights against a slow sum."""

import math
from fractions import Fraction

import pytest
import torch

from levelhead.conformal.ranks import effective_size, rank, threshold, weighted_thresholds


def test_ranks_are_those_of_exact_arithmetic():
    assert rank(19, 0.1) == 18
    for alpha in ("0.01", "0.05", "0.1", "0.2", "0.25", "0.3", "0.5"):
        for n in range(1, 2001):
            assert rank(n, float(alpha)) == math.ceil((n + 1) * (1 - Fraction(alpha)))


def test_the_threshold_is_that_order_statistic_and_no_quantile_of_gaps():
    scores = torch.arange(20, dtype=torch.float64)[torch.randperm(20)]
    assert float(threshold(scores, 0.1)) == 18.0  # rank 19 of 20; torch.quantile at 19 / 20 with "higher" gives 19
    assert float(scores.quantile(0.95, interpolation="higher")) == 19.0


def test_too_few_rows_give_infinity():
    scores = torch.rand(8).double()
    assert float(threshold(scores, 0.1)) == math.inf
    assert float(threshold(scores, 1 / 9)) == float(scores.max())
    assert float(threshold(scores[:0], 0.1)) == math.inf


def slow(scores, weights, at, alpha):
    found = []
    for w in at.tolist():
        total, mass, best = weights.sum().item() + w, 0.0, math.inf
        for place in scores.argsort().tolist():
            mass += weights[place].item()
            if mass >= (1 - alpha) * total - 1e-12:
                best = scores[place].item()
                break
        found.append(best)
    return torch.tensor(found, dtype=torch.float64)


def test_weighted_thresholds_are_the_slow_sum():
    torch.manual_seed(0)
    scores, log_weights, at = torch.randn(60).double(), torch.randn(60).double(), 2 * torch.randn(50).double()
    found = weighted_thresholds(scores, log_weights, at=at, alpha=0.2)
    torch.testing.assert_close(found, slow(scores, log_weights.exp(), at.exp(), 0.2))
    assert found.isinf().any()
    assert found.isfinite().any()


@pytest.mark.parametrize("n", [5, 9, 19, 20, 99, 200])
@pytest.mark.parametrize("shift", [-300.0, 0.0, 300.0])
def test_equal_weights_are_no_weights(n, shift):
    scores = torch.randn(n).double()
    for alpha in (0.05, 0.1, 0.5):
        same = torch.full((n,), shift).double()
        found = weighted_thresholds(scores, same, at=same[:1], alpha=alpha)
        assert float(found) == float(threshold(scores, alpha))


def test_effective_size_counts_equal_rows():
    assert effective_size(torch.zeros(7).double()) == pytest.approx(7)
    assert effective_size(torch.tensor([0.0, 0.0, -1e3]).double()) == pytest.approx(2)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_alpha_is_an_error_rate(alpha):
    with pytest.raises(ValueError, match="alpha"):
        rank(10, alpha)
