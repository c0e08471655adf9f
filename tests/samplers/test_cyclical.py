"""The cycles: rates, where noise is, which draws are kept."""

import math

import pytest
import torch
from samplers.targets import N, objective, setting

from levelhead.samplers.cyclical import Cyclical, rate
from levelhead.samplers.sgd import SGD
from levelhead.samplers.sghmc import SGHMC
from levelhead.samplers.sgld import SGLD
from levelhead.types import CannotCompose

INNER = SGLD(epochs=40, batch_size=N, lr=0.6, prior_scale=None)
SPEC = Cyclical(inner=INNER, cycles=4, draws=2, noisy=0.3)


def walked(spec: Cyclical):
    """Rates, temperatures and whether the stream was drawn from, of every step; and the state."""
    network, task, run = setting(1)
    state, batch = spec.init(network, task, run), next(task.train.ordered(N))
    found = []
    for _ in range(spec.epochs):
        before = torch.random.get_rng_state()
        spec.step(state, objective(lambda pair: pair.square().sum()), batch)
        drawn = not torch.equal(before, torch.random.get_rng_state())
        group = state.inner.optimiser.param_groups[0]
        found.append((group["lr"], state.inner.optimiser.temperature, drawn, len(state.kept)))
    return state, found


def test_rates_start_anew_in_every_cycle_and_end_near_zero():
    _, found = walked(SPEC)
    rates = [lr for lr, *_ in found]
    expected = [0.3 * (math.cos(math.pi * ((k - 1) % 10) / 10) + 1) for k in range(1, 41)]
    assert rates == pytest.approx(expected)
    assert rates[0] == rates[10] == 0.6
    assert rates[9] < 0.03 * 0.6
    assert rate(0.0) == 1.0
    assert rate(1.0) == 0.0


def test_noise_comes_in_the_last_part_and_draws_with_it():
    state, found = walked(SPEC)
    noisy = [k % 10 >= 7 for k in range(40)]
    assert [drawn for *_, drawn, _ in found] == noisy
    assert [temperature for _, temperature, *_ in found] == [1.0 if now else 0.0 for now in noisy]
    kept = [count for *_, count in found]
    assert kept[:10] == [0] * 8 + [1, 2]
    assert kept[-1] == 8 == SPEC.predictor(state).num_draws


def test_cycles_that_do_not_divide_the_steps_end_with_the_run():
    state, found = walked(Cyclical(inner=SGHMC(epochs=11, batch_size=N), cycles=3, draws=1))
    assert [count for *_, count in found] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3]
    assert len(state.kept) == 3


def test_samplers_without_noise_are_refused():
    with pytest.raises(CannotCompose, match=r"Snapshot\(inner=SGD\(\)\)"):
        Cyclical(inner=SGD()).init(*setting(1))
    with pytest.raises(ValueError, match="noisy must be in"):
        Cyclical(noisy=0.0)
    with pytest.raises(ValueError, match="cycles and draws"):
        Cyclical(cycles=0)
