"""The one training loop, what it runs on, and the protocols of the parts that take turns in it."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import nn

from levelhead.declared import Pace, Paced
from levelhead.forward import Objective, Term, Watching, extend, network_loss
from levelhead.network import Network
from levelhead.passes import noise_state, set_noise_state
from levelhead.predictor import Predictor
from levelhead.tasks.task import Task
from levelhead.types import Batch, NonFiniteLoss, Scalar

LOG = "train.jsonl"  # in the folder of a fit: a line an epoch
LOGGED = ("epoch", "loss", "seconds")  # what each line has, whatever terms watch
NON_FINITE_LOSS = (
    "The loss became {value} in epoch {epoch} (of {epochs}), by step {step}. Lower the learning rate "
    "(--set sampler.lr=...), or clip gradients (--set sampler.clip=1.0)."
)


class Progress(NamedTuple):
    """Where a fit stands: `epoch` of `epochs` done, mean training loss in nats, seconds so far; path of nested fits."""

    epoch: int
    epochs: int
    loss: float
    seconds: float
    path: tuple[str, ...]


@dataclass(frozen=True)
class Runtime:
    """Where and how a fit runs; never part of what is fitted.

    folder              finished members, checkpoints and the log go there; None keeps nothing on disk.
    checkpoint_seconds  time between checkpoints in mid-epoch.
    report              called after each epoch.
    workers             processes of one thread that fit independent members side by side.
    path                which part of a nested fit this is.
    shared              where searches keep their trials, for other searches to find; None: in `folder`.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    workers: int = 1
    folder: Path | None = None
    checkpoint_seconds: float = 20.0
    report: Callable[[Progress], None] | None = None
    path: tuple[str, ...] = ()
    shared: Path | None = None

    def inside(self, part: str) -> Self:
        """The runtime of a part of this fit, in a folder of its own."""
        return replace(self, folder=None if self.folder is None else self.folder / part, path=(*self.path, part))


@dataclass
class Run:
    """One fit: its seed, its runtime, and how to train a plain network on the side."""

    seed: int
    runtime: Runtime = field(default_factory=Runtime)
    plain: Callable[[Network, Task, "Run"], Predictor] | None = None
    _memo: dict[int, Predictor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return torch.device(self.runtime.device)

    def seed_for(self, *stream: object) -> int:
        """A seed for a named stream: initialisation, order, noise; the same on every machine."""
        text = json.dumps([self.seed, *[str(part) for part in stream]])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def generator(self, *stream: object) -> torch.Generator:
        """A CPU generator for a named stream."""
        return torch.Generator().manual_seed(self.seed_for(*stream))

    def train(self, network: Network, task: Task) -> Predictor:
        """A plain fit of a copy of `network` (no regularisers), once a run."""
        if self.plain is None:
            raise RuntimeError("Run.train: this run was made without a plain fit; Recipe.fit provides one")
        if id(network) not in self._memo:
            side = Run(self.seed_for("plain"), self.runtime.inside("plain"))
            self._memo[id(network)] = self.plain(network.copy(), task, side)
        return self._memo[id(network)]


class Regulariser(Protocol):
    """The spec of a term: a frozen value whose `start` makes the state of one fit."""

    def start(self, network: Network, task: Task, run: Run) -> Term:
        """The term of one fit."""


class State(Protocol):
    """What a sampler moves. It holds its network."""

    network: Network

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


S = TypeVar("S", bound=State)


class Sampler(Protocol[S]):
    """Data into weights; moves exactly the parameters that require grad at `init`. batch_size None: full batch."""

    @property
    def epochs(self) -> int:
        """Passes over the training split."""

    @property
    def batch_size(self) -> int | None:
        """Rows a step."""

    def init(self, network: Network, task: Task, run: Run) -> S:
        """The state before the first step."""

    def step(self, state: S, objective: Objective, batch: Batch) -> Scalar:
        """One step on one batch; returns the objective, detached."""

    def predictor(self, state: S) -> Predictor:
        """What came of it."""


def train(
    network: Network, task: Task, regularisers: Sequence[Regulariser], sampler: Sampler[Any], run: Run
) -> Predictor:
    """Fit `network` to `task.train`: the only loop. Resumes from run.runtime.folder where a checkpoint lies there.

    Raises NonFiniteLoss when the objective stops being a number.
    """
    network.train()
    terms = [regulariser.start(network, task, run) for regulariser in regularisers]
    objective = extend(network_loss, terms)  # first listed = outermost
    state = sampler.init(network, task, run)
    keeper = Checkpoint(run, state, terms)
    first, done = keeper.resume()
    watching = [term for term in terms if isinstance(term, Watching)]
    paced = [layer for layer in state.network.modules() if isinstance(layer, Paced)]
    for epoch in range(first, sampler.epochs):
        if any(term.finished for term in watching):
            break
        batches = task.train.batches(sampler.batch_size, run.generator("order", epoch), augment=task.augment)
        for step, batch in enumerate(islice(batches, done, None), start=done):
            for layer in paced:
                layer.pace(Pace(epoch, step, run.seed_for("pace", epoch), run.seed_for("pace", epoch, step)))
            keeper.add(sampler.step(state, objective, batch.to(run.device, run.runtime.dtype)))
            keeper.save_if_due(epoch)
        done = 0
        for term in terms:
            term.end_epoch(network)
        keeper.end_epoch(
            epoch, sampler.epochs, {name: value for term in watching for name, value in term.watched.items()}
        )
    predictor = sampler.predictor(state)
    keeper.close()
    return predictor.eval()


def watched_by(terms: Sequence[Watching]) -> dict[str, float]:
    """The numbers of all terms that watch. Raises ValueError where two share a name, or one is the log's own."""
    watched: dict[str, float] = {}
    for term in terms:
        for name, value in term.watched.items():
            if name in watched or name in LOGGED:
                raise ValueError(
                    f"watched: {type(term).__name__} calls a number {name!r}, which the log already has; "
                    "is a regulariser in the recipe twice?"
                )
            watched[name] = value
    return watched


class Checkpoint:
    """Everything a killed fit needs to go on as if nothing had happened, to the bit; and its log."""

    def __init__(self, run: Run, state: State, terms: Sequence[Term]) -> None:
        self.run, self.state, self.terms = run, state, terms
        self.folder = run.runtime.folder
        self.place = 0  # batches done in this epoch
        self.total = torch.zeros((), dtype=torch.float64)
        self.started = self.saved = time.monotonic()
        self.before = 0.0

    @property
    def path(self) -> Path | None:
        """The checkpoint's file."""
        return None if self.folder is None else self.folder / "state.pt"

    @property
    def seconds(self) -> float:
        """Time spent training, over all attempts."""
        return self.before + time.monotonic() - self.started

    def resume(self) -> tuple[int, int]:
        """Load what lies in the folder; the epoch to go on with, and the batches of it already done."""
        if self.path is None or not self.path.exists():
            self._keep_lines(0)
            return 0, 0
        saved = torch.load(self.path, map_location=self.run.device, weights_only=True)
        self.state.load_state_dict(saved["state"])
        for term, state in zip(self.terms, saved["terms"], strict=True):
            term.load_state_dict(state)
        set_noise_state({name: t.cpu() for name, t in saved["noise"].items()}, self.run.device)
        self.place, self.total, self.before = saved["place"], saved["total"].cpu(), saved["seconds"]
        self._keep_lines(saved["epoch"])
        return saved["epoch"], saved["place"]

    def _keep_lines(self, epochs: int) -> None:
        """Cut the log back to the epochs that the checkpoint has: the others are done, and written, again."""
        log = None if self.folder is None else self.folder / LOG
        if log is not None and log.exists():
            log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:epochs]))

    def add(self, loss: Scalar) -> None:
        """Count one step."""
        self.total = self.total.to(loss.device) + loss.detach()
        self.place += 1

    def save_if_due(self, epoch: int) -> None:
        """Save in mid-epoch when the last checkpoint is old."""
        if self.path is not None and time.monotonic() - self.saved > self.run.runtime.checkpoint_seconds:
            self.save(epoch)

    def save(self, epoch: int) -> None:
        """Write the checkpoint in one move."""
        if self.path is None:
            return
        write_atomically(
            self.path,
            {
                "state": self.state.state_dict(),
                "terms": [term.state_dict() for term in self.terms],
                "noise": noise_state(self.run.device),
                "epoch": epoch,
                "place": self.place,
                "total": self.total,
                "seconds": self.seconds,
            },
        )
        self.saved = time.monotonic()

    def end_epoch(self, epoch: int, epochs: int, watched: Mapping[str, float]) -> None:
        """Check, log and report a finished epoch, with what terms watched in it."""
        loss = float(self.total) / max(self.place, 1)
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise NonFiniteLoss(NON_FINITE_LOSS.format(value=loss, epoch=epoch + 1, epochs=epochs, step=self.place))
        self.place, self.total = 0, torch.zeros((), dtype=torch.float64)
        progress = Progress(epoch + 1, epochs, loss, self.seconds, self.run.runtime.path)
        if self.folder is not None:
            if time.monotonic() - self.saved > self.run.runtime.checkpoint_seconds:
                self.save(epoch + 1)
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("a") as log:
                log.write(
                    json.dumps({"epoch": epoch + 1, "loss": loss, "seconds": round(self.seconds, 3), **watched}) + "\n"
                )
        if self.run.runtime.report is not None:
            self.run.runtime.report(progress)

    def close(self) -> None:
        """A finished fit needs no checkpoint."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def write_atomically(path: Path, value: Mapping[str, Any]) -> None:
    """torch.save that leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(value, scratch)
    os.replace(scratch, path)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters a sampler may move."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
