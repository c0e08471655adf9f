import pytest
import scoringrules
import torch
from torch.testing import assert_close

from levelhead.metrics.regression import mae
from levelhead.metrics.samples import energy_score, sample_crps


def drawn(members=7, rows=30, targets=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(members, rows, targets, generator=generator, dtype=torch.float64)
    return draws, torch.randn(rows, targets, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("fair, estimators", [(True, ("pwm", "fair")), (False, ("qd", "nrg"))])
def test_crps_agrees_with_scoringrules(fair, estimators):
    draws, y = drawn()
    for estimator in estimators:
        theirs = scoringrules.crps_ensemble(y[:, 0].numpy(), draws[..., 0].T.numpy(), estimator=estimator)
        assert float(sample_crps(draws, y, fair=fair)) == pytest.approx(theirs.mean())


@pytest.mark.parametrize("fair", [True, False])
def test_energy_score_agrees_with_loops_and_with_crps(fair):
    draws, y = drawn(members=5, rows=12, targets=3)
    count = 5 * 4 if fair else 25
    by_hand = []
    for row in range(12):
        x = draws[:, row]
        apart = sum(float((a - b).norm()) for a in x for b in x) / (2 * count)
        by_hand.append(sum(float((a - y[row]).norm()) for a in x) / 5 - apart)
    assert float(energy_score(draws, y, fair=fair)) == pytest.approx(sum(by_hand) / 12)
    one, target = drawn(targets=1)
    assert_close(energy_score(one, target, fair=fair), sample_crps(one, target, fair=fair))
    if not fair:
        theirs = scoringrules.es_ensemble(y.numpy(), draws.permute(1, 0, 2).numpy())
        assert float(energy_score(draws, y, fair=False)) == pytest.approx(theirs.mean())


def test_only_the_fair_score_forgets_the_number_of_draws():
    """The true CRPS of a standard normal forecast of itself is 1 / sqrt(pi) = 0.564; five draws read 0.674 unfairly."""
    draws, y = drawn(members=5, rows=20_000)
    assert float(sample_crps(draws, y)) == pytest.approx(0.564, abs=0.01)
    assert float(sample_crps(draws, y, fair=False)) == pytest.approx(0.674, abs=0.01)


def test_one_draw_is_a_point():
    draws, y = drawn(members=1)
    assert_close(sample_crps(draws, y, fair=False), mae(draws[0], y))
    for call in (sample_crps, energy_score):
        with pytest.raises(ValueError, match="draws"):
            call(draws, y)


def test_gradients_are_the_finite_differences():
    draws, y = drawn(members=4, rows=3)
    for call in (sample_crps, energy_score):
        assert torch.autograd.gradcheck(lambda d, call=call: call(d, y), draws.clone().requires_grad_())
