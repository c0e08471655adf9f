"""Recipes: frozen values with a `fit`. One names a backbone, surgeries, regularisers, a sampler and post-hoc steps; the
others combine recipes and have the same `fit`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import torch

from levelhead.network import Backbone, Network, Surgery, build
from levelhead.passes import seeded
from levelhead.predictor import Ensemble, Predictor
from levelhead.processes import each
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.tasks.task import Task
from levelhead.training import Regulariser, Run, Runtime, Sampler, train
from levelhead.types import CannotCompose, LevelheadError

PostHoc = Callable[[Predictor, Task], Predictor]
DRY_ROWS = 8


class Fit(Protocol):
    """Anything that turns a task and a seed into a predictor."""

    def fit(self, task: Task, seed: int = 0, runtime: Runtime = Runtime(), *, rehearsed: bool = False) -> Predictor:
        """The predictor; task, seed and the value itself determine it."""

    def shortened(self) -> Self:
        """The same shape of computation at the smallest size, for a dry run."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One network's recipe: backbone, surgeries in order, regularisers (first = outermost), sampler, post-hoc steps."""

    backbone: Backbone
    surgery: tuple[Surgery, ...] = ()
    regularisers: tuple[Regulariser, ...] = ()
    sampler: Sampler[Any] = field(default_factory=SGD)
    posthoc: tuple[PostHoc, ...] = ()

    def __post_init__(self) -> None:
        for name in ("surgery", "regularisers", "posthoc"):
            value = getattr(self, name)
            if not isinstance(value, tuple):
                raise TypeError(f"Recipe: {name} wants a tuple of parts, got {value!r}; write ({name}_part,)")

    def build(self, task: Task, seed: int = 0) -> Network:
        """The network before training."""
        with seeded(Run(seed).seed_for("init")):
            return build(self.backbone, self.surgery, task.signature)

    def fit(self, task: Task, seed: int = 0, runtime: Runtime = Runtime(), *, rehearsed: bool = False) -> Predictor:
        """Train on task.train, apply the post-hoc steps on task.calibration, and return the predictor.

        Runs the whole recipe dry first unless `rehearsed`: what cannot compose raises CannotCompose before training.
        """
        if not rehearsed:
            rehearse(self, task)
        run = Run(seed, runtime, plain=self._plain)
        shares = shared_out(self, task.to(run.device).sealed())
        network = self.build(task, seed).to(run.device, runtime.dtype)
        if runtime.compile:
            network.compile()  # as a whole: rows enter between the steps of its features, which no pass calls as one
        with seeded(run.seed_for("noise"), run.device):
            predictor = train(network, shares.fitting, self.regularisers, self.sampler, run)
        return finished(predictor, self.posthoc, shares, run)

    def _plain(self, network: Network, task: Task, run: Run) -> Predictor:
        with seeded(run.seed_for("noise"), run.device):
            return train(network, task, (), self.sampler, run)

    def shortened(self) -> Self:
        """One epoch on a tiny batch."""
        return dataclasses.replace(self, sampler=_shortened_sampler(self.sampler))


@dataclass(frozen=True, kw_only=True)
class DeepEnsemble:
    """`size` independent fits of one recipe, averaged as a mixture (Lakshminarayanan et al., arXiv 1612.01474).

    member   what is fitted `size` times, each with a seed derived from the ensemble's.
    posthoc  steps on the finished mixture (pool, then calibrate).
    runtime.workers members are fitted side by side, in processes of one thread each.
    """

    member: Fit
    size: int = 5
    posthoc: tuple[PostHoc, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"DeepEnsemble: size must be at least 1, got {self.size}")

    def fit(self, task: Task, seed: int = 0, runtime: Runtime = Runtime(), *, rehearsed: bool = False) -> Predictor:
        """Fit the members, reuse those already in runtime.folder, and apply the post-hoc steps to the mixture."""
        if not rehearsed:
            rehearse(self, task)
        run = Run(seed, runtime)
        alone = dataclasses.replace(runtime, workers=1)
        shares = shared_out(self, task)
        jobs = [
            (self.member, shares.fitting, run.seed_for("member", k), alone.inside(f"member-{k}"))
            for k in range(self.size)
        ]
        mixture = Ensemble(list(each(fit_part, jobs, workers=runtime.workers)))
        return finished(mixture, self.posthoc, shares.to(run.device), run)

    def shortened(self) -> Self:
        """Two members, one epoch each."""
        return dataclasses.replace(self, member=self.member.shortened(), size=min(self.size, 2))


def fit_part(member: Fit, task: Task, seed: int, runtime: Runtime) -> Predictor:
    """Fit a part of a combinator, or load it where an earlier run finished it."""
    place = None if runtime.folder is None else runtime.folder / "predictor"
    if place is not None and place.exists():
        return load(place, trust=("*",)).to(runtime.device)  # our own file, written below
    predictor = member.fit(task, seed, runtime, rehearsed=True)
    if place is not None:
        save(predictor, place)
    return predictor


class Shares(NamedTuple):
    """The task of everything that fits, and that of the steps that promise something about new rows."""

    fitting: Task
    fresh: Task

    def to(self, device: torch.device) -> "Shares":
        """Sealed, on `device`."""
        return Shares(self.fitting.to(device).sealed(), self.fresh.to(device).sealed())


def shared_out(recipe: Fit, task: Task) -> Shares:
    """The calibration rows in two halves where a step says `needs_fresh_rows` and something else may fit on them.

    Conformal and selective steps promise something about rows that are exchangeable with their calibration rows; rows
    that a temperature was fitted on are not. The halves are the same for everybody (`Task.shared_calibration`), and the
    predictors keep the digests of the rows that they were fitted on.
    """
    steps = [*posthoc_steps(recipe), *_steps_inside(recipe)]
    if all(needs_fresh_rows(step) for step in steps) or not any(map(needs_fresh_rows, posthoc_steps(recipe))):
        return Shares(task, task)
    return Shares(*task.shared_calibration())


def finished(predictor: Predictor, steps: Sequence[PostHoc], shares: Shares, run: Run) -> Predictor:
    """The predictor after its post-hoc steps, each on its share of the calibration rows."""
    for place, step in enumerate(steps):
        with seeded(run.seed_for("posthoc", place), run.device):
            predictor = step(predictor, shares.fresh if needs_fresh_rows(step) else shares.fitting)
    return predictor.eval()


def needs_fresh_rows(step: PostHoc) -> bool:
    """Whether a step wants calibration rows that nothing else was fitted on."""
    return bool(getattr(step, "needs_fresh_rows", False))  # any function may be a step


def _steps_inside(recipe: Any) -> Iterator[PostHoc]:
    """The post-hoc steps of a combinator's members."""
    member = getattr(recipe, "member", None)
    if member is not None:
        yield from posthoc_steps(member)
        yield from _steps_inside(member)


def rehearse(recipe: Fit, task: Task) -> None:
    """Run a recipe dry: 8 rows, one step, every post-hoc step, combinators of two.

    Raises CannotCompose where parts do not go together, with what to write instead.
    """
    dry = task.dry(DRY_ROWS)
    predictor = recipe.shortened().fit(dry, 0, Runtime(), rehearsed=True)
    with torch.no_grad():
        belief = predictor(next(iter(dry.val.ordered(DRY_ROWS))).x)
    if not torch.isfinite(belief.total()).all():
        raise CannotCompose(
            "After one step on 8 rows this recipe predicts numbers that are not finite. Lower the learning rate, or "
            f"leave out parts until it does not: {recipe}"
        )


def _shortened_sampler(sampler: Any) -> Any:
    """A sampler of one epoch and one tiny batch; wrappers shorten what they hold."""
    changes: dict[str, Any] = {}
    for spec in dataclasses.fields(sampler):
        if spec.name == "inner":
            changes["inner"] = _shortened_sampler(sampler.inner)
        elif spec.name == "epochs":
            changes["epochs"] = 1
        elif spec.name == "batch_size" and sampler.batch_size is not None:
            changes["batch_size"] = DRY_ROWS
    return dataclasses.replace(sampler, **changes)


def posthoc_steps(recipe: Fit) -> Sequence[PostHoc]:
    """The outermost post-hoc steps of a recipe or combinator."""
    return getattr(recipe, "posthoc", ())


__all__ = [
    "DeepEnsemble",
    "Fit",
    "LevelheadError",
    "PostHoc",
    "Recipe",
    "finished",
    "fit_part",
    "posthoc_steps",
    "rehearse",
    "shared_out",
]
