"""The loop: its order, its log, its checkpoints to the bit, and the streams of random numbers."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from levelhead.backbones.mlp import MLP
from levelhead.declared import Pace, Paced
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.objectives.vat import VAT
from levelhead.predictor import Point
from levelhead.recipe import Recipe
from levelhead.samplers._gradient import GradientState
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG
from levelhead.tasks.stripes import stripes
from levelhead.training import Progress, Run, Runtime, train, watched_by
from levelhead.types import Batch, NonFiniteLoss, Scalar

TASK = stripes(n=60)
PLAIN = SGD(epochs=3, batch_size=16, lr=0.05)


class Killed(Exception):
    pass


class Interrupted(SGD):
    """SGD that dies before its `at`-th step."""

    at = 0
    taken = 0

    def step(self, state: GradientState, objective: Objective, batch: Batch) -> Scalar:
        type(self).taken += 1
        if type(self).taken == self.at:
            raise Killed
        return super().step(state, objective, batch)


def weights(predictor: torch.nn.Module) -> dict[str, Tensor]:
    return predictor.state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(t, second[name]) for name, t in first.items())


def test_same_seed_same_predictor_and_another_seed_another() -> None:
    recipe = Recipe(backbone=MLP(), sampler=PLAIN)
    first, again, other = (weights(recipe.fit(TASK, seed)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_a_fit_leaves_torchs_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    Recipe(backbone=MLP(), sampler=PLAIN).fit(TASK, 0)
    assert torch.equal(torch.randn(3), expected)


SAMPLERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda inner: inner,
    "ema": lambda inner: EMA(inner=inner),
    "swag": lambda inner: SWAG(inner=inner, num_draws=2),
}


@pytest.mark.parametrize("wrapper", SAMPLERS)
@pytest.mark.parametrize("at", [3, 7])
def test_a_fit_killed_in_mid_epoch_goes_on_to_the_bit(wrapper: str, at: int, tmp_path: Path) -> None:
    wrap = SAMPLERS[wrapper]
    regularisers = (VAT(eps=0.5),)  # draws from the stream at every step
    runtime = Runtime(folder=tmp_path, checkpoint_seconds=0.0)
    whole = Recipe(backbone=MLP(batch_norm=True), regularisers=regularisers, sampler=wrap(PLAIN)).fit(TASK, 3)
    dying = type("Dying", (Interrupted,), {"at": at, "taken": 0})(epochs=3, batch_size=16, lr=0.05)
    recipe = Recipe(backbone=MLP(batch_norm=True), regularisers=regularisers, sampler=wrap(dying))
    with pytest.raises(Killed):
        recipe.fit(TASK, 3, runtime, rehearsed=True)
    assert (tmp_path / "state.pt").exists()
    resumed = Recipe(backbone=MLP(batch_norm=True), regularisers=regularisers, sampler=wrap(PLAIN)).fit(
        TASK, 3, runtime
    )
    x = TASK.test.take(5).x / 255
    assert same(weights(resumed), weights(whole))
    assert torch.equal(resumed(x).probs, whole(x).probs)
    assert not (tmp_path / "state.pt").exists()


def test_sigkill_and_resume_equals_one_run(tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import torch
            from levelhead.backbones.mlp import MLP
            from levelhead.recipe import Recipe
            from levelhead.samplers.sgd import SGD
            from levelhead.storage import save
            from levelhead.tasks.stripes import stripes
            from levelhead.training import Runtime
            torch.set_num_threads(1)
            folder = Path(sys.argv[1])
            recipe = Recipe(backbone=MLP((64,)), sampler=SGD(epochs=150, batch_size=16))
            save(recipe.fit(stripes(n=60), 0, Runtime(folder=folder, checkpoint_seconds=0.05)), folder / "predictor")
            """
        )
    )

    def start(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / folder)], env={**os.environ})

    assert start("whole").wait(120) == 0
    broken = start("broken")
    while not (tmp_path / "broken" / "state.pt").exists():
        time.sleep(0.01)
        assert broken.poll() is None
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert not (tmp_path / "broken" / "predictor").exists()
    assert start("broken").wait(120) == 0
    files = [tmp_path / name / "predictor" / "tensors.safetensors" for name in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()
    logs = [(tmp_path / name / "train.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    strip = [[{**json.loads(line), "seconds": 0} for line in log] for log in logs]
    assert strip[0] == strip[1], "epochs after the last checkpoint are done again, but stand in the log once"


def test_the_log_has_a_line_an_epoch_and_the_report_is_called(tmp_path: Path) -> None:
    heard: list[Progress] = []
    Recipe(backbone=MLP(), sampler=PLAIN).fit(TASK, 0, Runtime(folder=tmp_path, report=heard.append))
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [p.epoch for p in heard] == [1, 2, 3]
    assert [line["loss"] for line in lines] == [p.loss for p in heard]
    assert lines[-1]["loss"] < lines[0]["loss"]
    Recipe(backbone=MLP(), sampler=PLAIN).fit(TASK, 0, Runtime(folder=tmp_path))
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 3, (
        "a fit without a checkpoint begins its log anew"
    )


def test_a_loss_that_is_no_number_says_what_to_try() -> None:
    with pytest.raises(NonFiniteLoss, match=r"epoch \d of|epoch \d \(of 3\).*sampler\.lr"):
        Recipe(backbone=MLP(), sampler=SGD(epochs=3, lr=1e30, momentum=0.0)).fit(TASK, 0, rehearsed=True)


def test_streams_are_named_and_apart() -> None:
    run = Run(0)
    assert run.seed_for("order", 1) == Run(0).seed_for("order", 1)
    seeds = {run.seed_for(*stream) for stream in (("order", 1), ("order", 2), ("noise",), ("order", "1", ""))}
    assert len(seeds) == 4
    assert Run(1).seed_for("noise") != run.seed_for("noise")


def test_a_plain_fit_on_the_side_happens_once() -> None:
    fits = []

    def plain(network: Any, task: Any, run: Run) -> Point:
        fits.append(run.seed)
        return Point(network)

    run = Run(0, plain=plain)
    network = MLP()(TASK.signature)
    first = run.train(network, TASK)
    assert run.train(network, TASK) is first
    assert fits == [run.seed_for("plain")]
    assert next(first.networks()) is not network
    with pytest.raises(RuntimeError, match="without a plain fit"):
        Run(0).train(network, TASK)


def test_only_parameters_that_require_gradients_move() -> None:
    network = MLP()(TASK.signature)
    network.head.requires_grad_(False)
    before = network.head.weight.clone()
    inside = network.features.hidden1.linear.weight.clone()
    train(network, TASK, (), PLAIN, Run(0))
    assert torch.equal(network.head.weight, before)
    assert not torch.equal(network.features.hidden1.linear.weight, inside)


@pytest.mark.parametrize("sampler", [PLAIN, AdamW(epochs=3, lr=1e-2)], ids=repr)
def test_learning_happens(sampler: Any) -> None:
    predictor = Recipe(backbone=MLP(), sampler=sampler.__class__(**{**vars(sampler), "epochs": 20})).fit(TASK, 0)
    belief = predictor(TASK.test.x / 255)
    assert (belief.label == TASK.test.y).float().mean() > 0.8


class Told(Paced):
    """Adds what the seeds of its pace say, and remembers where it was told training stands."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Pace] = []
        self.shift = 0.0

    def pace(self, now: Pace) -> None:
        self.heard.append(now)
        self.shift = float(torch.rand((), generator=torch.Generator().manual_seed(now.epoch_seed)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift if self.training else x


@dataclass(frozen=True)
class Tell:
    """A surgery that puts a told layer behind the features."""

    def __call__(self, network: Network) -> Network:
        return network.appended(Told(), name="told", author="Tell")


def told(predictor: torch.nn.Module) -> Told:
    return next(module for module in predictor.modules() if isinstance(module, Told))


def test_a_paced_layer_is_told_of_every_step_also_after_a_kill(tmp_path: Path) -> None:
    whole = Recipe(backbone=MLP(), surgery=(Tell(),), sampler=PLAIN).fit(TASK, 3, rehearsed=True)
    heard = told(whole).heard
    steps = len(heard) // 3
    assert [(now.epoch, now.step) for now in heard] == [(e, s) for e in range(3) for s in range(steps)]
    assert len({now.epoch_seed for now in heard}) == 3
    assert len({now.step_seed for now in heard}) == len(heard)
    dying = type("Dying", (Interrupted,), {"at": steps + 2, "taken": 0})(epochs=3, batch_size=16, lr=0.05)
    runtime = Runtime(folder=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        Recipe(backbone=MLP(), surgery=(Tell(),), sampler=dying).fit(TASK, 3, runtime, rehearsed=True)
    resumed = Recipe(backbone=MLP(), surgery=(Tell(),), sampler=PLAIN).fit(TASK, 3, runtime, rehearsed=True)
    assert told(resumed).heard == heard[steps + 1 :], "the step that was not done is told again"
    assert same(weights(resumed), weights(whole))


@dataclass(frozen=True)
class StopAfter:
    """A regulariser that watches, and ends the fit after some epochs."""

    epochs: int = 2

    def start(self, network: Network, task: Any, run: Run) -> "Counting":
        return Counting(self.epochs)


class Counting:
    def __init__(self, epochs: int) -> None:
        self.epochs, self.done = epochs, 0

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        return inner(forward)

    def end_epoch(self, network: Network) -> None:
        self.done += 1

    @property
    def watched(self) -> dict[str, float]:
        return {"done": float(self.done)}

    @property
    def finished(self) -> bool:
        return self.done >= self.epochs

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def test_a_term_that_watches_writes_to_the_log_and_ends_the_fit_also_a_resumed_one(tmp_path: Path) -> None:
    def log(name: str) -> list[dict[str, float]]:
        return [json.loads(line) for line in (tmp_path / name / "train.jsonl").read_text().splitlines()]

    ended = Recipe(backbone=MLP(), regularisers=(StopAfter(2),), sampler=PLAIN)
    short = Recipe(backbone=MLP(), sampler=SGD(epochs=2, batch_size=16, lr=0.05, schedule="constant"))
    constant = replace(ended, sampler=SGD(epochs=5, batch_size=16, lr=0.05, schedule="constant"))
    first = constant.fit(TASK, 0, Runtime(folder=tmp_path / "whole"))
    assert same(weights(first), weights(short.fit(TASK, 0)))
    assert [line["done"] for line in log("whole")] == [1.0, 2.0]
    # A kill between the last epoch's checkpoint and the predictor: nothing more is trained.
    network = MLP()(TASK.signature)
    term = Counting(2)
    term.load_state_dict({"done": 2})
    before = [p.clone() for p in network.parameters()]

    class Done:
        def start(self, *_: Any) -> Counting:
            return term

    train(network, TASK, (Done(),), PLAIN, Run(0))
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_numbers_that_terms_watch_have_names_of_their_own() -> None:
    assert watched_by([Counting(2)]) == {"done": 0.0}
    with pytest.raises(ValueError, match=r"Counting calls a number 'done'.*twice"):
        watched_by([Counting(2), Counting(3)])
    loss = Counting(2)
    loss.__class__ = type("Loud", (Counting,), {"watched": {"loss": 1.0}})
    with pytest.raises(ValueError, match="Loud calls a number 'loss'"):
        watched_by([loss])
