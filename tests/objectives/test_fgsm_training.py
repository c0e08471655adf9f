"""Single-step training: its examples, its costs, and a guard that stops, gives back, and survives a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, Objective, network_loss
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.objectives.adversarial_training import AdversarialTraining
from levelhead.objectives.fgsm_training import FGSMTraining
from levelhead.recipe import Recipe
from levelhead.samplers._gradient import GradientState
from levelhead.samplers.sgd import SGD
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime
from levelhead.types import Batch, CannotCompose, Scalar

TASK = stripes(n=60)
EPS = 0.1


def made(seed: int = 0) -> tuple[Network, Batch]:
    torch.manual_seed(seed)
    return MLP(batch_norm=True)(TASK.signature).train(), next(TASK.train.ordered(30))


@pytest.mark.parametrize("init", ["uniform", "zero"])
@pytest.mark.parametrize("mode", ["train", "side", "eval"])
def test_examples_stay_in_the_box_and_are_pictures(init: Any, mode: Any) -> None:
    network, batch = made()
    moved = FGSMTraining(eps=EPS, alpha=1.25 * EPS, init=init, attack_mode=mode).attacked(Forward(network, batch))
    assert (moved - batch.x).abs().max() <= EPS + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad
    quiet = Forward(network.eval(), batch)
    assert network_loss(quiet.on(x=moved)) > network_loss(quiet)


def test_without_a_step_the_random_start_is_left_and_without_a_radius_training_is_clean() -> None:
    network, batch = made()
    forward = Forward(network, batch)
    torch.manual_seed(3)
    start = batch.x + EPS * (2 * torch.rand_like(batch.x) - 1)
    torch.manual_seed(3)
    assert_close(FGSMTraining(eps=EPS, alpha=0.0).attacked(forward), start.clamp(0, 1))
    term = FGSMTraining(eps=0.0, attack_mode="side").start(network, TASK, Run(0))
    assert_close(term(network_loss, forward), network_loss(forward))


def test_it_is_adversarial_training_of_one_step() -> None:
    network, batch = MLP()(TASK.signature), next(TASK.train.ordered(30))
    wide = AdversarialTraining(eps=EPS, clean_weight=0.0, random_start=True, step_size=1.25, clamp=True)
    narrow = FGSMTraining(eps=EPS, alpha=1.25 * EPS, attack_mode="side", guard="off")
    general, special = wide.start(network, TASK, Run(0)), narrow.start(network, TASK, Run(0))
    general.low, general.high = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)  # whatever these few pictures reach
    losses = []
    for term in (general, special):
        torch.manual_seed(1)
        losses.append(term(network_loss, Forward(network, batch)))
    assert_close(losses[0], losses[1])


def test_a_step_costs_two_passes() -> None:
    network, batch = made()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(network.training))
    term = FGSMTraining().start(network, TASK, Run(0))
    term(network_loss, Forward(network, batch))
    assert calls == [True, True], "the attack's and the training pass, as in the reference"


def test_both_accuracies_are_those_of_a_slow_computation() -> None:
    network, batch = made()
    term = FGSMTraining(eps=EPS, guard_rows=20, guard_steps=3, guard="log").start(network, TASK, Run(0))
    seen: list[tuple[Tensor, Tensor]] = []

    def inner(forward: Forward) -> Scalar:
        seen.append((forward.outputs.detach(), forward.batch.y))
        return network_loss(forward)

    for rows in (slice(0, 10), slice(10, 30)):
        term(inner, Forward(network, batch._replace(x=batch.x[rows], y=batch.y[rows], index=batch.index[rows])))
    term.end_epoch(network)
    right = [outputs[0].argmax(-1) == y for outputs, y in seen]
    rows = next(term.rows.ordered(20))
    network.eval()
    noise = torch.rand(rows.x.shape, generator=Run(0).generator("fgsm_training", "guard"))
    moved = (rows.x + EPS * (2 * noise - 1)).clamp(0, 1)
    for _ in range(3):
        moved.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(moved)[0], rows.y)
        moved = moved + EPS / 4 * torch.autograd.grad(loss, moved)[0].sign()
        moved = moved.clamp(rows.x - EPS, rows.x + EPS).clamp(0, 1).detach()
    robust = (network(moved)[0].argmax(-1) == rows.y).float().mean()
    assert term.watched == {
        "fgsm_accuracy": pytest.approx(float(torch.cat(right).float().mean())),
        "pgd_accuracy": pytest.approx(float(robust)),
    }
    assert not term.finished


class Collapsing(SGD):
    """SGD whose weights turn around after two epochs: every label is wrong from then on."""

    def step(self, state: GradientState, objective: Objective, batch: Batch) -> Scalar:
        loss = super().step(state, objective, batch)
        if state.done == 2 * state.steps_per_epoch + 1:
            with torch.no_grad():
                state.network.head.weight.neg_()
                state.network.head.bias.neg_()
        return loss


class Killed(Exception):
    pass


class Dying(Collapsing):
    """The same, killed at its `at`-th step."""

    at = 0
    taken = 0

    def step(self, state: GradientState, objective: Objective, batch: Batch) -> Scalar:
        type(self).taken += 1
        if type(self).taken == self.at:
            raise Killed
        return super().step(state, objective, batch)


SETTINGS: dict[str, Any] = {"epochs": 6, "batch_size": 10, "lr": 0.02, "schedule": "constant"}


def recipe(sampler: SGD, guard: Any = "stop") -> Recipe:
    return Recipe(
        backbone=MLP(batch_norm=True), regularisers=(FGSMTraining(eps=0.02, alpha=0.02, guard=guard),), sampler=sampler
    )


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_a_collapse_ends_the_fit_and_gives_back_the_weights_from_before(tmp_path: Path) -> None:
    stopped = recipe(Collapsing(**SETTINGS)).fit(TASK, 0, Runtime(folder=tmp_path / "stop"), rehearsed=True)
    lines = log(tmp_path / "stop")
    assert len(lines) == 3
    assert lines[1]["pgd_accuracy"] - lines[2]["pgd_accuracy"] > 0.2
    before = recipe(SGD(**{**SETTINGS, "epochs": 2})).fit(TASK, 0, rehearsed=True)
    assert all(torch.equal(t, before.state_dict()[name]) for name, t in stopped.state_dict().items())


def test_a_log_alone_ends_nothing(tmp_path: Path) -> None:
    recipe(Collapsing(**SETTINGS), "log").fit(TASK, 0, Runtime(folder=tmp_path / "log"), rehearsed=True)
    lines = log(tmp_path / "log")
    assert len(lines) == 6
    assert all(0 <= line[name] <= 1 for line in lines for name in ("fgsm_accuracy", "pgd_accuracy"))
    recipe(SGD(**SETTINGS), "off").fit(TASK, 0, Runtime(folder=tmp_path / "off"), rehearsed=True)
    assert "pgd_accuracy" not in log(tmp_path / "off")[0]


def test_the_guard_changes_nothing_before_it_speaks() -> None:
    guarded, alone = (recipe(SGD(**{**SETTINGS, "epochs": 2}), guard).fit(TASK, 0) for guard in ("stop", "off"))
    assert all(torch.equal(t, alone.state_dict()[name]) for name, t in guarded.state_dict().items())


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_fit_stops_where_an_uninterrupted_one_does(epoch: int, tmp_path: Path) -> None:
    def fit(sampler: SGD, name: str) -> dict[str, Tensor]:
        runtime = Runtime(folder=tmp_path / name, checkpoint_seconds=0.0)
        return recipe(sampler).fit(TASK, 0, runtime, rehearsed=True).state_dict()

    whole = fit(Collapsing(**SETTINGS), "whole")
    steps = TASK.train.num_batches(10)
    dying = type("Dying", (Dying,), {"at": epoch * steps + 2, "taken": 0})(**SETTINGS)
    with pytest.raises(Killed):
        fit(dying, "killed")
    resumed = fit(Collapsing(**SETTINGS), "killed")
    assert all(torch.equal(t, resumed[name]) for name, t in whole.items())
    accuracies = [[line["pgd_accuracy"], line["fgsm_accuracy"]] for line in log(tmp_path / "whole")]
    assert [[line["pgd_accuracy"], line["fgsm_accuracy"]] for line in log(tmp_path / "killed")] == accuracies


def test_what_makes_no_sense_is_refused() -> None:
    for wrong, text in (
        ({"eps": -1.0}, "eps and alpha must not be negative"),
        ({"bounds": (1.0, 0.0)}, "bounds wants a lower and a higher number"),
        ({"guard_drop": 20.0}, r"drop wants a share of accuracy in \(0, 1\), got 20"),
        ({"guard_steps": 0}, "guard_steps and guard_rows must be at least 1"),
    ):
        with pytest.raises(ValueError, match=text):
            FGSMTraining(**wrong)


def test_inputs_outside_the_bounds_and_targets_without_labels_are_refused_with_advice() -> None:
    def split(name: str) -> Split:
        return Split(name, 3 * torch.randn(20, 2), torch.randn(20, 1))

    task = Task("table", split("train"), split("val"), split("calibration"), split("test"), Gaussian())
    network = MLP()(task.signature)
    with pytest.raises(CannotCompose, match=r"outside the bounds .*write bounds=None"):
        FGSMTraining().start(network, task, Run(0))
    with pytest.raises(CannotCompose, match="write guard='off'"):
        FGSMTraining(bounds=None).start(network, task, Run(0))
    forward = Forward(network, next(task.train.ordered(20)))
    assert FGSMTraining(bounds=None, guard="off").start(network, task, Run(0))(network_loss, forward).isfinite()
