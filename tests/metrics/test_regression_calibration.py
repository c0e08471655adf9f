import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.testing import assert_close

from levelhead.metrics.ranking import excess_aurc
from levelhead.metrics.regression import quantile_calibration_error
from levelhead.metrics.regression_calibration import (
    ause,
    ence,
    ence_floor,
    interval_calibration_error,
    pit_histogram,
    pit_test,
    quantile_error_floor,
    sparsification,
    spread_bins,
    spread_variation,
    uce,
)


def gaussians(n=2000, seed=0, wrong=1.0):
    generator = torch.Generator().manual_seed(seed)
    std = 0.2 + torch.rand(n, generator=generator, dtype=torch.float64)
    return wrong * std, std * torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_both_kinds_of_calibration_against_loops(norm):
    cdf = torch.tensor([[0.1], [0.5], [0.52], [0.9], [0.97]], dtype=torch.float64)
    u = cdf[:, 0].tolist()
    below = [sum(c <= t for c in u) / 5 - t for t in (0.25, 0.5, 0.75)]
    central = [sum(abs(c - 0.5) <= t / 2 for c in u) / 5 - t for t in (0.25, 0.5, 0.75)]
    for call, errors in ((quantile_calibration_error, below), (interval_calibration_error, central)):
        power = 1 if norm == "l1" else 2
        expected = (sum(abs(e) ** power for e in errors) / 3) ** (1 / power)
        assert float(call(cdf, levels=3, norm=norm)) == pytest.approx(expected)


def test_a_biased_mean_can_hide_in_central_intervals_only():
    z = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cdf = torch.special.ndtr(0.8 * z + 0.6)  # too wide, and off: the two errors cancel in the middle
    assert float(quantile_calibration_error(cdf)) > 4 * float(interval_calibration_error(cdf))


def test_floor_of_the_quantile_error_is_what_right_predictives_read():
    for n in (50, 500):
        seen = torch.stack([quantile_calibration_error(torch.rand(n, 1).double()) for _ in range(200)])
        assert quantile_error_floor(n) == pytest.approx(float(seen.mean()), rel=0.1)


def test_pit():
    cdf = torch.tensor([[0.0], [0.05], [0.1], [0.55], [1.0]], dtype=torch.float64)
    assert pit_histogram(cdf).tolist() == [2, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    u = torch.rand(300, 1, dtype=torch.float64) ** 1.1
    theirs = kstest(u[:, 0].numpy(), "uniform", method="asymp")
    found = pit_test(u)
    assert float(found.statistic) == pytest.approx(theirs.statistic)
    assert float(found.p_value) == pytest.approx(theirs.pvalue, abs=0.02)
    assert float(pit_test(torch.arange(1, 10).double()[:, None] / 10).p_value) > 0.99
    assert float(pit_test(torch.zeros(100, 1).double()).p_value) < 1e-9
    with pytest.raises(ValueError, match="cdf"):
        pit_test(torch.tensor([[1.5]]))


def test_ence_and_uce_against_loops():
    std, error = gaussians(95)
    order = std.argsort()
    ends = [-(-95 * b // 10) for b in range(11)]
    normalised, absolute = [], []
    for i, j in pairwise(ends):
        rows = order[i:j]
        rmv, rmse = float(std[rows].square().mean().sqrt()), float(error[rows].square().mean().sqrt())
        normalised.append(abs(rmv - rmse) / rmv)
        absolute.append((j - i) / 95 * abs(rmv**2 - rmse**2))
    assert float(ence(std, error)) == pytest.approx(np.mean(normalised))
    assert float(uce(std, error)) == pytest.approx(sum(absolute))
    assert int(spread_bins(std, error).rows.sum()) == 95


@pytest.mark.parametrize("bins", [10, 50])
def test_floor_of_ence_is_what_right_gaussians_read(bins):
    seen = torch.stack([ence(*gaussians(5000, seed), bins=bins) for seed in range(30)])
    assert ence_floor(5000, bins=bins) == pytest.approx(float(seen.mean()), rel=0.15)
    assert float(ence(*gaussians(5000, wrong=2.0))) == pytest.approx(0.5, abs=0.03)


def test_constant_spread_is_one_bin_without_variation():
    error = torch.randn(500, dtype=torch.float64)
    std = torch.full_like(error, float(error.square().mean().sqrt()))
    assert len(spread_bins(std, error).rows) == 1
    assert float(ence(std, error)) == pytest.approx(0, abs=1e-12)
    assert float(spread_variation(std)) == pytest.approx(0, abs=1e-12)
    assert float(spread_variation(torch.tensor([1.0, 3.0]))) == pytest.approx(math.sqrt(2) / 2)


def test_promising_no_error():
    zero, some = torch.zeros(4).double(), torch.ones(4).double()
    assert float(ence(zero, zero)) == 0
    assert math.isinf(float(ence(zero, some)))
    for bad in (torch.tensor([-1.0]), torch.tensor([torch.nan]), torch.empty(0)):
        with pytest.raises(ValueError, match="std"):
            ence(bad, bad)
    with pytest.raises(ValueError, match="std"):
        spread_variation(zero)


def test_sparsification_against_loops():
    std, error = gaussians(40)
    curve = sparsification(std, error)
    order, best = std.argsort(), error.abs().argsort()
    for removed in range(40):
        kept, oracle = order[: 40 - removed], best[: 40 - removed]
        assert float(curve.removed[removed]) == pytest.approx(removed / 40)
        assert float(curve.error[removed]) == pytest.approx(float(error[kept].square().mean().sqrt()))
        assert float(curve.best[removed]) == pytest.approx(float(error[oracle].square().mean().sqrt()))
    area = float((curve.error - curve.best).mean())
    assert float(ause(std, error, normalised=False)) == pytest.approx(area)
    assert float(ause(std, error)) == pytest.approx(area / float(error.square().mean().sqrt()))


def test_ause_limits():
    std, error = gaussians(300)
    assert float(ause(error.abs(), error)) == pytest.approx(0, abs=1e-9)
    assert 0 < float(ause(std, error)) < float(ause(-std, error))
    assert float(ause(std, 0 * error)) == 0
    absolute = ause(std, error, root=False, normalised=False)
    assert_close(absolute, excess_aurc(std, error.abs()))
