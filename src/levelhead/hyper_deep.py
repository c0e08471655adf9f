"""Hyper-deep ensembles: members that differ in hyper-parameters and in initialisation, found by a random search."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Ensemble, Predictor, predict
from levelhead.processes import each
from levelhead.recipe import Fit, PostHoc, finished, rehearse, shared_out
from levelhead.selection import OBJECTIVES, Selection, greedy_select, greedy_select_densities
from levelhead.storage import load, save
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime
from levelhead.types import CannotCompose
from levelhead.values import digest, get_path, set_path, to_json

SELECTIONS = ("greedy", "best", "seeds")
SEARCH = "search.json"  # in the fit's folder: what was tried, and what was picked


class Space(Protocol):
    """Values for a path into a recipe; the specs are in `levelhead.spaces`."""

    @property
    def path(self) -> str:
        """Where they are written; several paths, with commas between, get the same value."""

    def draw(self, generator: torch.Generator) -> Any:
        """One value."""


class Trial(NamedTuple):
    """One training: the number of its setting (0 is the member as it is), its number among that setting's seeds."""

    setting: int
    column: int


class Done(NamedTuple):
    """What a training left: its predictor (None where it lies in the folder) and log p(y) on the validation rows.

    beliefs  (row, class) log probabilities for classes, (row,) log densities of the targets else.
    """

    predictor: Predictor | None
    folder: Path | None
    beliefs: Float[Tensor, "row *class"]


@dataclass(frozen=True, kw_only=True)
class HyperDeepEnsemble:
    """Random search over `candidates` settings, greedy selection of `size`, those again under `size` seeds, selection.

    The validation rows (`task.val`) choose, twice; `task.calibration` is left for post-hoc steps. Members are weighted
    by how often they were picked. Trainings: candidates + U (size - 1), where U <= size settings survive the first
    selection; `size` networks at most are in the result.

    member      the recipe that is varied.
    space       paths into it, with distributions of `levelhead.spaces`.
    candidates  kappa: settings tried, the member's own among them as the first. More of them with the same seed only
                add: the trials before stay what they were.
    fixed_init  every candidate starts from the same weights (the paper); False: from weights of its own.
    stratify    the second half: without it, the greedy choice among the candidates (the authors' "simplified" run).
    objective   of the selection: "nll", "accuracy", "nll-acc" or "brier"; real targets know "nll" alone.
    selection   "greedy"; or for comparison, each equally weighted: "best" the `size` best alone by the same score,
                "seeds" the best setting under `size` seeds: the deep ensemble of the tuned member.
    refit       train what was picked again on train and validation rows together. What looks at `val` in training then
                sees the calibration rows. Coefficients of LayerL2 keep their meaning. U more trainings.
    posthoc     steps on the finished mixture.

    Trials that a folder holds are loaded, so a killed search goes on, and one with more candidates starts from them.
    runtime.workers trials are fitted side by side.

    Wenzel, Snoek, Tran & Jenatton, arXiv 2006.13570.
    """

    member: Fit
    space: tuple[Space, ...] = ()
    size: int = 4
    candidates: int = 50
    fixed_init: bool = True
    stratify: bool = True
    objective: str = "nll"
    selection: str = "greedy"
    refit: bool = False
    posthoc: tuple[PostHoc, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("candidates", self.candidates)):
            if value < 1:
                raise ValueError(f"HyperDeepEnsemble: {name} must be at least 1, got {value}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"HyperDeepEnsemble: objective must be one of {OBJECTIVES}, got {self.objective!r}")
        if self.selection not in SELECTIONS:
            raise ValueError(f"HyperDeepEnsemble: selection must be one of {SELECTIONS}, got {self.selection!r}")
        if not isinstance(self.space, tuple):
            raise TypeError(f"HyperDeepEnsemble: space wants a tuple of distributions, got {self.space!r}")
        for space in self.space:
            for path in paths(space):
                get_path(self.member, path)  # raises with the fields that exist

    def fit(self, task: Task, seed: int = 0, runtime: Runtime = Runtime(), *, rehearsed: bool = False) -> Predictor:
        """Search, select, stratify, select; then the post-hoc steps on the mixture."""
        if not rehearsed:
            rehearse(self, task)
        run = Run(seed, runtime)
        shares = shared_out(self, task)
        search = Search(self, shares.fitting, run)
        chosen, found = search.run()
        members = search.refitted(chosen, found) if self.refit else [search.predictor(chosen[j]) for j in found.members]
        search.write_down(chosen, found)
        mixture = Ensemble(members, found.log_weights.to(run.device))
        return finished(mixture, self.posthoc, shares.to(run.device), run)

    def setting(self, run: Run, number: int) -> dict[str, Any]:
        """The values of a candidate by path: none for number 0, the member as it is."""
        if number == 0:
            return {}
        draws = ((space, space.draw(run.generator("setting", number, place))) for place, space in enumerate(self.space))
        return {path: value for space, value in draws for path in paths(space)}

    def with_setting(self, values: Mapping[str, Any]) -> Fit:
        """The member with these values at their paths."""
        member = self.member
        for path, value in values.items():
            member = set_path(member, path, value)
        return member

    def shortened(self) -> Self:
        """Two candidates, two seeds, one epoch each: drawn numbers of epochs and batch sizes must not undo that."""
        space = tuple(s for s in self.space if not any(p.endswith((".epochs", ".batch_size")) for p in paths(s)))
        size, candidates = min(self.size, 2), min(self.candidates, 2)
        return dataclasses.replace(self, member=self.member.shortened(), space=space, size=size, candidates=candidates)


class Search:
    """One search at work: what has been trained, and what is left to train."""

    def __init__(self, spec: HyperDeepEnsemble, task: Task, run: Run) -> None:
        self.spec, self.task, self.run_ = spec, task, run
        self.settings = [spec.setting(run, number) for number in range(spec.candidates)]
        self.done: dict[Trial, Done] = {}
        self.trainings = 0  # of this search, whether now or by an earlier attempt

    def run(self) -> tuple[list[Trial], Selection]:
        """The trials among which the last selection was made, and the selection."""
        spec = self.spec
        row = [Trial(number, 0) for number in range(spec.candidates)]
        self.train(row)
        found = self.select(row)
        if not spec.stratify and spec.selection != "seeds":
            return row, found
        survivors = found.members[:1] if spec.selection == "seeds" else found.members
        grid = [Trial(number, column) for number in survivors for column in range(spec.size)]
        self.train(grid)
        return grid, self.select(grid)

    def train(self, trials: Sequence[Trial]) -> None:
        """Fit the trials that have not been fitted."""
        missing = [trial for trial in trials if trial not in self.done]
        jobs = [
            (self.fit_of(trial), self.task, self.seed_of(trial), *self.places(trial), self.settings[trial.setting])
            for trial in missing
        ]
        for trial, done in zip(missing, each(_fit_trial, jobs, workers=self.run_.runtime.workers), strict=True):
            self.done[trial] = done
        self.trainings += len(missing)

    def select(self, trials: Sequence[Trial]) -> Selection:
        """The selection among trials, by their beliefs about the validation rows."""
        spec, beliefs = self.spec, torch.stack([self.done[trial].beliefs for trial in trials])
        y = self.task.val.y.cpu()
        if beliefs.ndim == 2 and spec.objective != "nll":
            raise CannotCompose(
                f"HyperDeepEnsemble: objective={spec.objective!r} needs labels of classes; use objective='nll' for "
                f"targets of {self.task.likelihood}"
            )

        def greedy(some: Tensor, k: int) -> Selection:
            if some.ndim == 2:
                return greedy_select_densities(some, k)
            return greedy_select(some, y, k, objective=spec.objective)

        if spec.selection == "greedy":
            return greedy(beliefs, spec.size)
        alone = [greedy(one[None], 1).history[0] for one in beliefs]
        best = tuple(sorted(range(len(alone)), key=alone.__getitem__)[: spec.size])
        return Selection(best, best, (1 / len(best),) * len(best), tuple(alone[j] for j in best))

    def fit_of(self, trial: Trial) -> Fit:
        """The recipe of a trial."""
        return self.spec.with_setting(self.settings[trial.setting])

    def seed_of(self, trial: Trial) -> int:
        """The seed of a trial: by column, the same for all settings and for members of a DeepEnsemble; a candidate's
        own in the first column where inits are not fixed."""
        if trial.column == 0 and not self.spec.fixed_init:
            return self.run_.seed_for("candidate", trial.setting)
        return self.run_.seed_for("member", trial.column)

    def places(self, trial: Trial, *extra: str) -> tuple[Runtime, Path | None]:
        """Where a trial is trained, and where its result is kept; named by content, so that searches share them."""
        runtime = dataclasses.replace(self.run_.runtime, workers=1)
        seed = self.seed_of(trial)
        name = "-".join(("trial", digest(self.fit_of(trial), self.task.digest), f"{seed:x}", *extra))
        shared = runtime.shared or (None if runtime.folder is None else runtime.folder / "trials")
        return runtime.inside(name), None if shared is None else shared / name

    def predictor(self, trial: Trial) -> Predictor:
        """The predictor of a trial."""
        return self.read(self.done[trial])

    def read(self, done: Done) -> Predictor:
        """A predictor from memory, or from disk."""
        if done.predictor is not None:
            return done.predictor
        assert done.folder is not None, "a trial leaves its predictor here or on disk"
        return load(done.folder / "predictor", trust=("*",)).to(self.run_.device)  # written below, by us

    def refitted(self, trials: Sequence[Trial], found: Selection) -> list[Predictor]:
        """The picked trials, trained on train and validation rows together."""
        whole = joined(self.task)
        jobs: list[tuple[Any, ...]] = [
            (self.fit_of(trials[j]), whole, self.seed_of(trials[j]), *self.places(trials[j], "refit"), {})
            for j in found.members
        ]
        self.trainings += len(jobs)
        return [self.read(done) for done in each(_fit_trial, jobs, workers=self.run_.runtime.workers)]

    def write_down(self, trials: Sequence[Trial], found: Selection) -> None:
        """The table of the search, beside the checkpoint folders: what was tried, what was picked, what it cost."""
        folder = self.run_.runtime.folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{SEARCH}.{os.getpid()}.tmp"
        scratch.write_text(json.dumps(self.table(trials, found), indent=1), encoding="utf-8")
        os.replace(scratch, folder / SEARCH)

    def table(self, trials: Sequence[Trial], found: Selection) -> dict[str, Any]:
        """See `write_down`."""
        return {
            "trainings": self.trainings,
            "selected_on": {"split": "val", "rows": len(self.task.val), "digest": self.task.val.digest},
            "settings": [to_json(setting) for setting in self.settings],
            "members": [
                {"setting": trials[j].setting, "seed": trials[j].column, "weight": weight}
                for j, weight in zip(found.members, found.weights, strict=True)
            ],
            "history": found.history,
        }


def paths(space: Space) -> list[str]:
    """The paths that a space writes to."""
    return [path.strip() for path in space.path.split(",")]


def joined(task: Task) -> Task:
    """The task with its validation rows among the training rows. Its `val` is then its calibration: no row is in two
    splits of one use, and no test row has moved."""
    train = Split("train", torch.cat([task.train.x, task.val.x]), torch.cat([task.train.y, task.val.y]))
    clone = task._with_splits(lambda split: split)
    vars(clone).update(train=train, val=task.calibration, signature=task.signature, known_overlaps=True)
    for known in ("_receipt", "overlaps"):
        vars(clone).pop(known, None)
    return clone


def _fit_trial(
    fit: Fit, task: Task, seed: int, runtime: Runtime, kept: Path | None, setting: Mapping[str, Any]
) -> Done:
    """Fit one trial, or load what an earlier run left of it."""
    stored = None if kept is None else kept / "val.pt"
    if kept is not None and stored is not None and stored.exists() and (kept / "predictor").exists():
        return Done(None, kept, torch.load(stored, weights_only=True))
    predictor = fit.fit(task, seed, runtime, rehearsed=True)
    beliefs = believed(predictor, task, runtime.device)
    if kept is None or stored is None:
        return Done(predictor, None, beliefs)
    kept.mkdir(parents=True, exist_ok=True)
    try:
        save(predictor, kept / "predictor")
    except OSError:  # another search has finished the same trial meanwhile: to the bit the same
        if not (kept / "predictor").exists():
            raise
    (kept / "setting.json").write_text(json.dumps(to_json(dict(setting))), encoding="utf-8")
    scratch = stored.with_suffix(f".{os.getpid()}.tmp")
    torch.save(beliefs, scratch)
    os.replace(scratch, stored)
    return Done(None, kept, beliefs)


def believed(predictor: Predictor, task: Task, device: str) -> Float[Tensor, "row *class"]:
    """What a predictor says about the validation rows: log probabilities of classes, log densities of targets."""
    val = task.val.to(device)
    belief = predict(predictor, val)
    if isinstance(belief, CategoricalMixture):
        if belief.log_probs.ndim != 2 or val.y.is_floating_point():
            raise CannotCompose(
                "HyperDeepEnsemble selects by one label a row; use a task with integer labels, one for each example"
            )
        return belief.log_probs.detach().cpu()
    return belief.log_prob(val.y).detach().cpu()
