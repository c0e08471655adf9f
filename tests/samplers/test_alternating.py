"""Tuning steps move the distributions and nothing else, training steps all else; what is tuned acts on its rows."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contracts.styles import regression
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.hyper_ranges import GaussianHyper, HyperRange
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.objectives.sub_batches import SubBatches
from levelhead.predictor import Point
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.alternating import Alternating, AlternatingState, HyperDraws
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.self_tuning import SelfTuning
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose

TASK = stripes(n=48, size=12, noise=0.3)
X = TASK.test.x / 255
EVERYTHING = HyperBatch(
    num_members=3, dropout_range=(0.01, 0.9), label_smoothing_range=(0.001, 0.3), groups="layer", embedding_scale=0.1
)
INNER = AdamW(epochs=2, batch_size=16, weight_decay=0.0)
SPEC = Alternating(inner=INNER, lr=0.05)


def started(surgery: Any = EVERYTHING, spec: Alternating = SPEC, task: Task = TASK) -> tuple[Network, AlternatingState]:
    """A network with statistics, and the state before its first step."""
    backbone = MLP(hidden=(8,), batch_norm=True)
    network = Recipe(backbone=backbone, surgery=(surgery,)).build(task).train()
    return network, spec.init(network, task.sealed(), Run(0))


def batch() -> Batch:
    return next(TASK.train.ordered(16))


def snapshot(network: Network) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in network.state_dict().items()}


def tensors(state: Any) -> list[Tensor]:
    """All tensors of an optimiser's state."""
    return [t.clone() for slot in state["state"].values() for t in slot.values() if isinstance(t, Tensor)]


def test_a_tuning_step_moves_the_distributions_and_nothing_else():
    network, state = started()
    SPEC.step(state, network_loss, batch())
    held, optimiser = snapshot(network), tensors(state.inner.optimiser.state_dict())
    state.tune()
    moved = {name for name, t in network.state_dict().items() if not torch.equal(t, held[name])}
    assert moved == {"hyper.log_alpha", "hyper.log_beta"}
    for one, other in zip(optimiser, tensors(state.inner.optimiser.state_dict()), strict=True):
        assert torch.equal(one, other)
    assert all(p.grad is None for p in network.hyper.parameters())
    assert not any(p.requires_grad for p in network.hyper.parameters())
    assert network.training


def test_a_training_step_leaves_the_distributions():
    spec = dataclasses.replace(SPEC, every=100)
    network, state = started(spec=spec)
    held = snapshot(network)
    for _ in range(3):
        spec.step(state, network_loss, batch())
    moved = {name for name, t in network.state_dict().items() if not torch.equal(t, held[name])}
    assert not {name for name in moved if name.startswith("hyper.")}
    weights = {name for name, p in network.named_parameters() if p.requires_grad}
    assert moved >= weights


@pytest.mark.parametrize("warmup, expected", [(0.0, 2), (1.0, 1), (2.0, 0)])
def test_tuning_comes_after_every_few_steps_and_the_warm_up(warmup, expected, monkeypatch):
    spec = dataclasses.replace(SPEC, warmup_epochs=warmup)  # an epoch has three steps
    _, state = started(spec=spec)
    calls = []
    monkeypatch.setattr(state, "tune", lambda: calls.append(state.done))
    for _ in range(6):
        spec.step(state, network_loss, batch())
    assert len(calls) == expected


def test_without_a_response_only_the_entropy_moves_a_distribution():
    network, state = started(spec=dataclasses.replace(SPEC, tau=0.0))
    for layer in network.layers(ConditionalWeights):
        nn.init.zeros_(layer.embedding.weight)
    held = network.hyper.log_beta.clone()
    state.tune()
    assert torch.equal(network.hyper.log_beta, held)


def test_the_tuning_loss_is_that_of_the_mixture_and_at_most_gibbs():
    network, state = started(spec=dataclasses.replace(SPEC, tau=0.25, entropy="sum"))
    network.eval()
    torch.manual_seed(5)
    hyper = network.hyper.sample(16)
    log_probs = F.log_softmax(network(batch().x, hyper=hyper), dim=-1)
    probs = log_probs.exp().mean(0)
    expected = F.nll_loss(probs.log(), batch().y) - 0.25 * network.hyper.entropy("sum")
    torch.manual_seed(5)
    assert_close(state.tuning_loss(batch()), expected)
    gibbs = F.nll_loss(log_probs.flatten(0, 1), batch().y.repeat(3)) - 0.25 * network.hyper.entropy("sum")
    assert expected < gibbs
    state.spec = dataclasses.replace(state.spec, loss="gibbs")
    torch.manual_seed(5)
    assert_close(state.tuning_loss(batch()), gibbs)


def test_the_training_loss_is_gibbs_with_smoothed_labels_and_the_penalty_of_the_rows():
    network, state = started()
    drawn = network.hyper.sample(16).detach()
    forward = Forward(network, batch()._replace(hyper=drawn))
    assert forward.outputs.shape == (3, 16, 3)  # computed once: dropout draws
    found = state.regularised(network_loss, drawn)(forward)
    rate = network.hyper.values(drawn)[..., -1:]
    targets = (1 - rate) * F.one_hot(batch().y, 3) + rate / 3
    cross = -(targets * F.log_softmax(forward.outputs, -1)).sum(-1).mean()
    settings = network.hyper.values(drawn)
    penalty = sum(layer.penalty(drawn, settings) for layer in network.layers(ConditionalWeights))
    assert penalty > 0
    assert_close(found, cross + penalty / len(TASK.train))


def test_the_rows_that_tune_are_those_of_the_split():
    for split in ("val", "train"):
        _, state = started(spec=dataclasses.replace(SPEC, split=split))
        rows = getattr(TASK, split)
        seen = torch.cat([state.next_batch().x for _ in range(rows.x.shape[0] // 16 + (len(rows) % 16 > 0))])
        assert_close(seen.sum(0), (rows.x / 255).sum(0))


def test_tuning_on_goes_on_where_it_stopped():
    _, state = started()
    for _ in range(2):
        state.next_batch()
    _, other = started()
    other.load_state_dict(state.state_dict())
    for _ in range(4):
        assert torch.equal(other.next_batch().index, state.next_batch().index)


def test_inits_of_one_seed_agree_whatever_is_tuned_and_members_differ_after():
    surgery = HyperBatch(num_members=3, groups="layer", l2_range=(1e-3, 1e3), embedding_scale=0.1)
    spec = Alternating(inner=dataclasses.replace(INNER, epochs=30, lr=0.01), lr=0.1, every=1)
    predictor = Recipe(backbone=MLP(hidden=(8,)), surgery=(surgery,), sampler=spec).fit(TASK, 0, rehearsed=True)
    hyper = predictor.network.hyper
    assert not torch.allclose(hyper.log_beta, hyper.log_high.expand(3, -1))
    assert (hyper.log_beta[0] - hyper.log_beta[1]).abs().max() > 1e-3
    assert bool((hyper.log_alpha >= hyper.log_low).all())
    assert bool((hyper.log_beta <= hyper.log_high).all())


def widths(tau: float) -> float:
    surgery = SelfTuning(dropout_range=(0.001, 0.9), embedding_scale=0.1)
    spec = Alternating(inner=dataclasses.replace(INNER, epochs=15), lr=0.05, tau=tau, every=1)
    predictor = Recipe(backbone=MLP(hidden=(8,)), surgery=(surgery,), sampler=spec).fit(TASK, 0, rehearsed=True)
    return float(predictor.network.hyper.sigma.mean())


def test_more_entropy_means_wider_distributions():
    found = [widths(tau) for tau in (0.0, 0.01, 1.0)]
    assert found == sorted(found)
    assert found[2] > found[0] + 0.1


def ridge(mode: str) -> tuple[float, float]:
    """Final log of the L2 coefficient and its best value on a grid, for a linear model on 40 rows of 30 features."""
    generator = torch.Generator().manual_seed(4)
    truth = torch.zeros(30)
    truth[:5] = torch.randn(5, generator=generator)
    x = torch.randn(80, 30, generator=generator)
    y = x @ truth + 1.5 * torch.randn(80, generator=generator)
    fit, held = (x[:40], y[:40]), (x[40:], y[40:])
    grid = torch.linspace(-4, 8, 241)
    losses = []
    for log_l2 in grid:
        w = torch.linalg.solve(fit[0].T @ fit[0] + log_l2.exp() * torch.eye(30), fit[0].T @ fit[1])
        losses.append(float((held[1] - held[0] @ w).square().mean()))
    best = float(grid[min(range(241), key=losses.__getitem__)])
    torch.manual_seed(0)
    layer = ConditionalWeights(nn.Linear(30, 1, bias=False), 1, 1, vectors=False, embedding_scale=0.1, kernel=0)
    hyper = GaussianHyper(
        (HyperRange("l2", math.exp(-8), math.exp(12)),), 1, start=(math.exp(-2),), sigma=0.5, centred=mode == "centred"
    )
    weights = torch.optim.Adam(layer.parameters(), lr=0.05)
    hyper.requires_grad_(True)
    tuner = torch.optim.Adam(hyper.parameters(), lr=0.05)
    for step in range(1500):
        drawn = hyper.sample(40)
        layer.condition = drawn if step % 3 == 2 else drawn.detach()
        rows = held if step % 3 == 2 else fit
        loss = (layer(rows[0])[:, 0] - rows[1]).square().mean()
        if step % 3 == 2:
            slopes = torch.autograd.grad(loss - 1e-3 * hyper.entropy("sum"), list(hyper.parameters()))
            for parameter, slope in zip(hyper.parameters(), slopes, strict=True):
                parameter.grad = slope
            tuner.step()
            hyper.project()
        else:
            loss = loss + layer.penalty(drawn.detach(), hyper.values(drawn.detach()).detach()) / 40
            weights.zero_grad()
            loss.backward()
            weights.step()
    return float(hyper.values(hyper.mean().detach()).log()), best


@pytest.mark.parametrize("mode", ["plain", "centred"])
def test_a_ridge_regression_finds_its_penalty(mode):
    found, best = ridge(mode)
    assert abs(found - best) < 0.7  # it starts more than 3 away
    assert best > 1


def test_predictions_at_draws_mix_the_point_and_the_draws(tmp_path):
    spec = dataclasses.replace(SPEC, num_draws=4)
    recipe = Recipe(backbone=MLP(hidden=(8,)), surgery=(EVERYTHING,), sampler=spec)
    predictor = recipe.fit(TASK, 0, rehearsed=True)
    assert isinstance(predictor, HyperDraws)
    belief = predictor(X)
    assert belief.num_members == 5 * 3
    assert torch.equal(predictor(X).log_probs, belief.log_probs)
    point = Point(predictor.network)(X)
    assert_close(belief.logits[:3], point.logits)
    assert not torch.allclose(belief.logits[3:6], point.logits, atol=1e-4)
    fresh = predictor.with_noise(None)
    assert not torch.equal(fresh(X).log_probs, fresh(X).log_probs)
    assert torch.equal(load(save(predictor.with_noise(0), tmp_path / "p"))(X).log_probs, belief.log_probs)


def test_what_was_learned_is_saved(tmp_path):
    recipe = Recipe(backbone=MLP(hidden=(8,)), surgery=(EVERYTHING,), sampler=SPEC)
    predictor = recipe.fit(TASK, 0, rehearsed=True)
    loaded = load(save(predictor, tmp_path / "p"))
    assert loaded.network.hyper.table() == predictor.network.hyper.table()
    assert torch.equal(loaded(X).log_probs, predictor(X).log_probs)


def test_it_wraps_averages_and_real_targets():
    spec = Alternating(inner=EMA(inner=INNER))
    fitted = Recipe(backbone=MLP(hidden=(8,)), surgery=(HyperBatch(num_members=2),), sampler=spec).fit(TASK, 0)
    assert fitted(X).probs.isfinite().all()
    task = regression()
    assert isinstance(task.likelihood, Gaussian)
    fitted = Recipe(backbone=MLP(hidden=(8,)), surgery=(HyperBatch(num_members=2),), sampler=SPEC).fit(task, 0)
    assert fitted(task.test.x).log_prob(task.test.y).isfinite().all()


def test_networks_without_hyper_parameters_are_refused_with_advice():
    with pytest.raises(CannotCompose, match=r"HyperBatch\(\) or SelfTuning\(\)"):
        Recipe(backbone=MLP(), sampler=SPEC).fit(TASK, 0)


def test_label_smoothing_of_real_targets_is_refused():
    with pytest.raises(CannotCompose, match="label_smoothing_range=None"):
        Recipe(backbone=MLP(), surgery=(EVERYTHING,), sampler=SPEC).fit(regression(), 0)


@pytest.mark.parametrize(
    "changes",
    [{"entropy": "max"}, {"entropy_space": "x"}, {"loss": "l1"}, {"split": "test"}, {"every": 0}, {"lr": -1.0}],
)
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="Alternating"):
        dataclasses.replace(SPEC, **changes)


def test_without_it_the_network_trains_at_the_mean_and_the_ranges_rest():
    recipe = Recipe(backbone=MLP(hidden=(8,)), surgery=(EVERYTHING,), sampler=SGD(epochs=2, batch_size=16))
    hyper = recipe.fit(TASK, 0, rehearsed=True).network.hyper
    assert_close(hyper.log_alpha, hyper.log_low.expand(3, -1))


def test_sub_batches_give_each_row_its_own_draw():
    network, state = started()
    drawn = network.hyper.sample(16).detach()
    forward = Forward(network, batch()._replace(hyper=drawn))
    seen = []

    def inner(forward: Forward) -> Tensor:
        seen.append(forward.batch)
        return network_loss(forward)

    torch.manual_seed(0)
    assert state.regularised(lambda f: SubBatches()(inner, f), drawn)(forward).isfinite()
    (shared,) = seen
    assert shared.hyper.shape == (3, 6, drawn.shape[-1])
    assert_close(shared.hyper[1], drawn[1, 6:12])
    assert_close(shared.hyper[2], drawn[2, [12, 13, 14, 15, 0, 1]])
    rate = network.hyper.values(shared.hyper)[1, :, -1:]
    assert_close(shared.y[1], (1 - rate) * F.one_hot(batch().y[6:12], 3) + rate / 3)
