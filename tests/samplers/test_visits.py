"""Snapshot and fast geometric ensembles: their learning rates, what they keep and when, and how they go on."""

import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.forward import network_loss
from levelhead.predictor import WeightSamples
from levelhead.recipe import Recipe
from levelhead.samplers._visits import VisitsState
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.ema import EMA
from levelhead.samplers.fast_geometric import FastGeometric
from levelhead.samplers.sgd import SGD
from levelhead.samplers.snapshot import Snapshot
from levelhead.tasks.stripes import stripes
from levelhead.training import Run, Sampler
from levelhead.types import CannotCompose

TASK = stripes(n=60)
INNER = SGD(epochs=10, batch_size=15, lr=0.2)  # four steps an epoch


def walked(spec: Sampler, steps: int | None = None) -> tuple[VisitsState, list[float], list[torch.Tensor]]:
    """A state after some or all of its steps; the rate of each step, and the head's weights after it."""
    torch.manual_seed(0)
    state = spec.init(MLP()(TASK.signature), TASK, Run(0))
    return (state, *walk_on(spec, state, 0, steps or spec.epochs * 4))


def walk_on(spec: Sampler, state: VisitsState, first: int, end: int) -> tuple[list[float], list[torch.Tensor]]:
    rates, path = [], []
    batches = [b for epoch in range(spec.epochs) for b in TASK.train.batches(15, torch.Generator().manual_seed(epoch))]
    for batch in batches[first:end]:
        spec.step(state, network_loss, batch)
        rates.append(state.inner.optimiser.param_groups[0]["lr"])
        path.append(state.network.head.weight.detach().clone())
    return rates, path


def test_snapshots_follow_restarted_cosines_and_keep_the_ends() -> None:
    state, rates, path = walked(Snapshot(inner=INNER, cycles=5))
    expected = [0.1 * (1 + math.cos(math.pi * (step % 8) / 8)) for step in range(40)]
    assert_close(torch.tensor(rates), torch.tensor(expected))
    assert len(state.kept) == 5
    for k, moment in enumerate(state.kept):
        assert torch.equal(moment["head.weight"], path[8 * (k + 1) - 1])
    few, _, _ = walked(Snapshot(inner=INNER, cycles=5, num_members=2))
    assert [float(m["head.weight"].sum()) for m in few.kept] == [float(path[i].sum()) for i in (31, 39)]


def test_cycles_that_do_not_divide_the_steps_and_more_cycles_than_steps() -> None:
    state, rates, path = walked(Snapshot(inner=INNER, cycles=3))
    assert [step for step in range(1, 40) if rates[step] > rates[step - 1]] == [13, 27]
    assert torch.equal(state.kept[-1]["head.weight"], path[-1])
    crowded, _, _ = walked(Snapshot(inner=SGD(epochs=1, batch_size=15), cycles=9))
    assert len(crowded.kept) == 4


def test_fast_geometric_cycles_are_triangles_and_keep_their_middles() -> None:
    spec = FastGeometric(inner=INNER, ordinary=0.5, cycle_epochs=1.0, high=0.5, low=0.1)
    state, rates, path = walked(spec)
    ordinary = [0.1 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert_close(torch.tensor(rates[:20]), torch.tensor(ordinary))
    assert_close(torch.tensor(rates[20:]), 0.2 * torch.tensor([0.3, 0.1, 0.3, 0.5] * 5))
    places = [19, *range(21, 40, 4)]
    assert len(state.kept) == len(places) == 6
    for place, moment in zip(places, state.kept, strict=True):
        assert torch.equal(moment["head.weight"], path[place])


@pytest.mark.parametrize("spec", [Snapshot(inner=INNER), FastGeometric(inner=INNER, ordinary=0.3)], ids=repr)
def test_going_on_from_a_checkpoint_changes_nothing(spec: Sampler) -> None:
    whole, _, path = walked(spec)
    half, _, _ = walked(spec, steps=17)
    torch.manual_seed(1)
    resumed = spec.init(MLP()(TASK.signature), TASK, Run(0))
    resumed.load_state_dict(half.state_dict())
    _, rest = walk_on(spec, resumed, 17, 40)
    assert torch.equal(rest[-1], path[-1])
    assert all(torch.equal(a["head.weight"], b["head.weight"]) for a, b in zip(whole.kept, resumed.kept, strict=True))


@pytest.mark.parametrize("spec", [Snapshot, FastGeometric])
def test_the_predictor_mixes_what_was_kept_statistics_included(spec) -> None:
    recipe = Recipe(backbone=ResNet(depth=8, width=4), sampler=spec(inner=SGD(epochs=6, batch_size=20, lr=0.05)))
    predictor = recipe.fit(TASK, 0)
    assert isinstance(predictor, WeightSamples)
    assert predictor.num_draws > 1
    assert any("running_mean" in name for name in predictor.draws)
    x = TASK.test.x[:4].float() / 255
    belief = predictor(x)
    network = predictor.network.copy().eval()
    for k in range(predictor.num_draws):
        network.load_state_dict({**network.state_dict(), **{name: t[k] for name, t in predictor.draws.items()}})
        assert_close(belief.logits[k], network(x)[0].log_softmax(-1), rtol=1e-4, atol=1e-5)
    assert float(belief.epistemic().detach().max()) > 0


def test_other_gradient_samplers_yes_and_wrappers_no() -> None:
    state, rates, _ = walked(Snapshot(inner=AdamW(epochs=4, batch_size=15, lr=0.01), cycles=2))
    assert len(state.kept) == 2
    assert rates[0] == rates[8] == 0.01
    for spec in (Snapshot, FastGeometric):
        with pytest.raises(CannotCompose, match=f"write {spec.__name__}"):
            spec(inner=EMA()).init(MLP()(TASK.signature), TASK, Run(0))


def test_validation() -> None:
    with pytest.raises(ValueError, match="cycles must be"):
        Snapshot(cycles=0)
    with pytest.raises(ValueError, match="num_members must be from 1 to cycles=3, got 4"):
        Snapshot(cycles=3, num_members=4)
    for options, text in (
        ({"ordinary": 1.0}, "ordinary must"),
        ({"cycle_epochs": 0.0}, "cycle_epochs must"),
        ({"low": 0.6}, "low <= high"),
        ({"num_members": 0}, "num_members must"),
    ):
        with pytest.raises(ValueError, match=text):
            FastGeometric(**options)
