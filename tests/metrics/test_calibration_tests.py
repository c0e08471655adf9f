import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from levelhead.metrics.calibration_tests import kolmogorov_smirnov, kuiper, logistic_refit, spiegelhalter


def drawn(n=400, seed=0, power=1.0):
    """Outcomes that come true with confidence^power."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.rand(n, generator=generator, dtype=torch.float64)
    return c, torch.rand(n, generator=generator, dtype=torch.float64) < c**power


def test_spiegelhalter_against_its_sums():
    c, a = drawn()
    cs, hits = c.tolist(), a.double().tolist()
    z = sum((h - p) * (1 - 2 * p) for p, h in zip(cs, hits, strict=True)) / math.sqrt(
        sum((1 - 2 * p) ** 2 * p * (1 - p) for p in cs)
    )
    found = spiegelhalter(c, a)
    assert float(found.statistic) == pytest.approx(z)
    assert float(found.p_value) == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))


@pytest.mark.parametrize("test", [spiegelhalter, kolmogorov_smirnov, kuiper])
def test_p_values_are_uniform_under_calibration_and_small_without_it(test):
    p = np.array([float(test(*drawn(1500, seed)).p_value) for seed in range(400)])
    for level in (0.05, 0.2, 0.5, 0.8):  # a walk of finitely many steps has a smaller range than its limit
        spread = 3 * math.sqrt(level * (1 - level) / 400)
        assert level - spread - 0.05 < (p <= level).mean() < level + spread
    c, a = drawn(1500)
    assert float(test(torch.sigmoid(2 * torch.logit(c)), a).p_value) < 1e-4


def test_spiegelhalter_is_blind_where_errors_below_and_above_one_half_cancel():
    c, a = drawn(1500, power=2.0)
    assert float(spiegelhalter(c, a).p_value) > 0.1
    assert float(kuiper(c, a).p_value) < 1e-6


def test_cumulative_differences_against_loops():
    c, a = drawn(50)
    walk, total = [0.0], 0.0
    for p, h in sorted(zip(c.tolist(), a.double().tolist(), strict=True)):
        total += (h - p) / 50
        walk.append(total)
    assert float(kolmogorov_smirnov(c, a).statistic) == pytest.approx(max(abs(w) for w in walk))
    assert float(kuiper(c, a).statistic) == pytest.approx(max(walk) - min(walk))


def test_ties_do_not_depend_on_the_order_of_rows():
    c = torch.full((10,), 0.5).double()
    a = torch.arange(10) < 5
    for order in (torch.arange(10), torch.arange(10).flip(0)):
        assert float(kolmogorov_smirnov(c, a[order]).statistic) == 0
        assert float(kuiper(c, a[order]).statistic) == 0
        assert float(kuiper(c, a[order]).p_value) == 1


def test_tails_of_the_limits_against_simulated_brownian_motion():
    from levelhead.metrics.calibration_tests import _tail_of_maximum, _tail_of_range

    generator = torch.Generator().manual_seed(0)
    walks = torch.randn(4000, 2000, generator=generator).cumsum(-1) / math.sqrt(2000)
    zero = torch.zeros(4000, 1)
    walks = torch.cat([zero, walks], dim=-1)
    for x in (0.7, 1.0, 1.6, 2.2):
        seen = float((walks.abs().amax(-1) > x).double().mean())
        assert float(_tail_of_maximum(torch.tensor(x).double())) == pytest.approx(seen, abs=0.035)
        seen = float((walks.amax(-1) - walks.amin(-1) > x).double().mean())
        assert float(_tail_of_range(torch.tensor(x).double())) == pytest.approx(seen, abs=0.035)
    for tail in (_tail_of_maximum, _tail_of_range):  # the pieces of the definitions meet
        for x in (0.5, 5.0):
            low, high = (float(tail(torch.tensor(x + e).double())) for e in (-1e-9, 1e-9))
            assert low == pytest.approx(high, abs=1e-7)
        assert float(tail(torch.tensor(7.0).double())) < 1e-10


def test_certainty_alone_leaves_nothing_to_chance():
    certain = torch.tensor([0.0, 1.0, 1.0]).double()
    right, wrong = torch.tensor([False, True, True]), torch.tensor([True, True, True])
    for test in (spiegelhalter, kolmogorov_smirnov, kuiper):
        assert [float(v) for v in test(certain, right)] == [0, 1]
        assert float(test(certain, wrong).p_value) == 0


def test_refit_agrees_with_scikit_learn_and_with_what_was_done():
    c, a = drawn(4000, power=1.0)
    overconfident = torch.sigmoid(2 * torch.logit(c) + 0.5)
    found = logistic_refit(overconfident, a)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    theirs.fit(torch.logit(overconfident).clamp(-16.118, 16.118)[:, None].numpy(), a.numpy())
    assert float(found.slope) == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    assert float(found.intercept) == pytest.approx(theirs.intercept_[0], rel=1e-2, abs=1e-3)
    assert float(found.slope) == pytest.approx(0.5, abs=0.05)
    assert float(found.intercept) == pytest.approx(-0.25, abs=0.1)
    flat = logistic_refit(*drawn(4000, seed=1))
    assert float(flat.slope) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "c, a",
    [([0.2, 0.8], [0, 1]), ([0.2, 0.8], [1, 0]), ([0.5, 0.5, 0.5], [0, 1, 1]), ([0.1, 0.9, 0.4], [1, 1, 1])],
    ids=["separated", "separated the wrong way", "one confidence", "one outcome"],
)
def test_refit_without_a_maximum_is_none(c, a):
    found = logistic_refit(torch.tensor(c).double(), torch.tensor(a).bool())
    assert found.slope.isnan()
    assert found.intercept.isnan()


def test_refit_survives_certainty():
    c, a = drawn(300)
    c[:3] = torch.tensor([0.0, 1.0, 1.0])
    found = logistic_refit(c, a)
    assert math.isfinite(float(found.slope))


def test_no_confidence_is_an_error():
    for bad in (torch.tensor([1.1]), torch.tensor([torch.nan]), torch.empty(0)):
        with pytest.raises(ValueError, match="confidence"):
            spiegelhalter(bad, torch.ones(len(bad)).bool())
