"""Hyper-deep ensembles: members that differ in hyper-parameters and in initialisation, found by a random search."""

import dataclasses
import itertools
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.predictor import Ensemble, Predictor
from levelhead.processes import each
from levelhead.proposals import PRUNERS, RANDOM, SAMPLERS, Drawn, OptunaProposals, Proposals, Space, paths
from levelhead.recipe import Fit, PostHoc, finished, rehearse, shared_out
from levelhead.selection import OBJECTIVES, NoFiniteScore, Selection, greedy_select, greedy_select_densities
from levelhead.storage import load
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime
from levelhead.trials import BUSY, EPOCHS, Done, Trial, attempt, fit_trial, joined, shortened_to
from levelhead.types import CannotCompose, NonFiniteLoss
from levelhead.values import digest, get_path, set_path, to_json

SELECTIONS = ("greedy", "best", "seeds")
RETRY_SECONDS = 0.5
ALL_DIVERGED = (
    "HyperDeepEnsemble: the loss of all {count} trainings became no number. Lower the learning rates of the space, or "
    "clip gradients (member.sampler.clip)"
)
SEARCH = "search.json"  # in the fit's folder: what was tried, and what was picked


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
    proposals   "random" draws, or one of Optuna's samplers, which learn from the candidates before: "tpe", "gp",
                "cmaes", "qmc" (extra `search`). They are told the validation score that selection goes by.
    at_once     candidates that Optuna proposes before it hears of them; so many at most are fitted side by side.
                A candidate whose loss becomes no number counts as trained, and is left out.
    pruner      "median" or "halving" of Optuna: a candidate is first trained for `looks` of its epochs, each time from
                the start, and given up, out of the selection too, where it does worse than others did by then.
    looks       shares of `sampler.epochs`, growing, below 1.

    Trials that a folder holds are loaded, so a killed search goes on, and one with more candidates starts from them.
    Several processes may run the same search on one folder: each takes trials that no other one has.
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
    proposals: str = RANDOM
    at_once: int = 1
    pruner: str | None = None
    looks: tuple[float, ...] = (0.25,)

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("candidates", self.candidates), ("at_once", self.at_once)):
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
        self._check_proposals()

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

    def _check_proposals(self) -> None:
        if self.proposals not in (RANDOM, *SAMPLERS):
            raise ValueError(
                f"HyperDeepEnsemble: proposals must be {RANDOM!r} or one of {tuple(SAMPLERS)}, got {self.proposals!r}"
            )
        if self.proposals != RANDOM and not self.space:
            raise ValueError("HyperDeepEnsemble: proposals of Optuna want a space to propose from; got none")
        if self.pruner is not None:
            if self.pruner not in PRUNERS or self.proposals == RANDOM:
                raise ValueError(
                    f"HyperDeepEnsemble: pruner must be None, or one of {tuple(PRUNERS)} beside proposals of Optuna "
                    f"{tuple(SAMPLERS)}; got pruner={self.pruner!r}, proposals={self.proposals!r}"
                )
            get_path(self.member, EPOCHS)
        if not self.looks or not all(a < b for a, b in itertools.pairwise((0.0, *self.looks, 1.0))):
            raise ValueError(f"HyperDeepEnsemble: looks wants growing shares between 0 and 1, got {self.looks}")

    def source(self, run: Run) -> Proposals:
        """Where the settings of a search come from."""
        if self.proposals == RANDOM:
            return Drawn(self.space, lambda number, place: run.generator("setting", number, place))
        return OptunaProposals(
            self.space,
            sampler=self.proposals,
            pruner=self.pruner,
            seed=run.seed_for("proposals"),
            several=self.at_once > 1,
        )

    def setting(self, run: Run, number: int) -> dict[str, Any]:
        """What random draws give a candidate, by path: nothing for number 0, the member as it is."""
        return {} if number == 0 else Drawn(self.space, lambda n, place: run.generator("setting", n, place)).ask(number)

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
        less = dataclasses.replace(self, proposals=RANDOM, pruner=None) if not space else self
        return dataclasses.replace(less, member=self.member.shortened(), space=space, size=size, candidates=candidates)


class Search:
    """One search at work: what has been trained, and what is left to train."""

    def __init__(self, spec: HyperDeepEnsemble, task: Task, run: Run) -> None:
        self.spec, self.task, self.run_ = spec, task, run
        self.settings: list[dict[str, Any]] = []
        self.done: dict[Trial, Done] = {}
        self.diverged: set[Trial] = set()
        self.given_up: list[int] = []  # candidates that the pruner did not let go on
        self.trainings = 0  # of this search, whether now or by an earlier attempt
        self.shortened: list[float] = []  # the shares of their epochs of the shortened ones, not counted there

    def run(self) -> tuple[list[Trial], Selection]:
        """The trials among which the last selection was made, and the selection."""
        spec = self.spec
        row = self.search()
        found = self.select(row)
        if not spec.stratify and spec.selection != "seeds":
            return row, found
        survivors = found.members[:1] if spec.selection == "seeds" else found.members
        grid = [Trial(row[place].setting, column) for place in survivors for column in range(spec.size)]
        self.train(grid)
        grid = self.came_to_something(grid)
        return grid, self.select(grid)

    def search(self) -> list[Trial]:
        """Propose and train the candidates; the trials that came to something."""
        spec, source = self.spec, self.spec.source(self.run_)
        at_once = spec.candidates if spec.proposals == RANDOM else spec.at_once
        for first in range(0, spec.candidates, at_once):
            numbers = range(first, min(first + at_once, spec.candidates))
            self.settings += [source.ask(number) if number else {} for number in numbers]
            self.train([Trial(number, 0) for number in numbers if number == 0])  # not proposed: not to be told of
            going = self.looked_at(source, [number for number in numbers if number])
            self.train([Trial(number, 0) for number in going])
            for number in going:
                source.tell(number, self.score(Trial(number, 0)))
        return self.came_to_something([Trial(number, 0) for number in range(spec.candidates)])

    def looked_at(self, source: Proposals, numbers: list[int]) -> list[int]:
        """The candidates that the pruner lets go on after each shortened training."""
        for look, share in enumerate(self.spec.looks if self.spec.pruner is not None else (), start=1):
            trials = [Trial(number, 0) for number in numbers]
            attempts = self.fitted(trials, [shortened_to(self.fit_of(trial), share) for trial in trials])
            self.shortened += [share] * len(trials)
            stays = []
            for number, done in zip(numbers, attempts, strict=True):
                if done is not None and source.goes_on(number, look, self.alone(done.beliefs)):
                    stays.append(number)
                else:
                    source.tell(number, None)
                    self.given_up.append(number)
            numbers = stays
        return numbers

    def train(self, trials: Sequence[Trial]) -> None:
        """Fit the trials that have not been fitted."""
        missing = [trial for trial in trials if trial not in self.done and trial not in self.diverged]
        for trial, done in zip(missing, self.fitted(missing, [self.fit_of(t) for t in missing]), strict=True):
            if done is None:
                self.diverged.add(trial)
            else:
                self.done[trial] = done
        self.trainings += len(missing)

    def fitted(self, trials: Sequence[Trial], fits: Sequence[Fit]) -> list[Done | None]:
        """What these recipes came to under the trials' seeds, trained now or by an earlier attempt; None: diverged."""
        jobs = [
            (fit, self.task, self.seed_of(trial), *self.places(fit, trial), self.settings[trial.setting])
            for fit, trial in zip(fits, trials, strict=True)
        ]
        found: list[Done | str | None] = [BUSY] * len(jobs)
        while BUSY in found:  # what another process has at work comes last, and is then there to load
            waiting = [place for place, done in enumerate(found) if done == BUSY]
            again = list(each(attempt, [jobs[place] for place in waiting], workers=self.run_.runtime.workers))
            for place, done in zip(waiting, again, strict=True):
                found[place] = done
            if all(done == BUSY for done in again):
                time.sleep(RETRY_SECONDS if again else 0)
        return [done for done in found if not isinstance(done, str)]

    def came_to_something(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that can be selected from. Raises NonFiniteLoss where none can."""
        found = [trial for trial in trials if trial in self.done]
        if not found:
            raise NonFiniteLoss(ALL_DIVERGED.format(count=len(trials)))
        return found

    def score(self, trial: Trial) -> float | None:
        """The validation score of a trial by itself; None where its training diverged."""
        return self.alone(self.done[trial].beliefs) if trial in self.done else None

    def alone(self, beliefs: Float[Tensor, "row *class"]) -> float:
        """The score of one model by itself, by the selection's objective: the lower the better, perhaps infinite."""
        try:
            return self.greedy(beliefs[None], 1).history[0]
        except NoFiniteScore:
            return math.inf

    def greedy(self, beliefs: Float[Tensor, "model row *class"], k: int) -> Selection:
        """The greedy selection among beliefs about the validation rows."""
        if beliefs.ndim == 2:
            return greedy_select_densities(beliefs, k)
        return greedy_select(beliefs, self.task.val.y.cpu(), k, objective=self.spec.objective)

    def select(self, trials: Sequence[Trial]) -> Selection:
        """The selection among trials, by their beliefs about the validation rows."""
        spec, beliefs = self.spec, torch.stack([self.done[trial].beliefs for trial in trials])
        if beliefs.ndim == 2 and spec.objective != "nll":
            raise CannotCompose(
                f"HyperDeepEnsemble: objective={spec.objective!r} needs labels of classes; use objective='nll' for "
                f"targets of {self.task.likelihood}"
            )

        if spec.selection == "greedy":
            return self.greedy(beliefs, spec.size)
        alone = [self.alone(one) for one in beliefs]
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

    def places(self, fit: Fit, trial: Trial, *extra: str) -> tuple[Runtime, Path | None]:
        """Where a trial is trained, and where its result is kept; named by content, so that searches share them."""
        runtime = dataclasses.replace(self.run_.runtime, workers=1)
        seed = self.seed_of(trial)
        name = "-".join(("trial", digest(fit, self.task.digest), f"{seed:x}", *extra))
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
            (
                fit,
                whole,
                self.seed_of(trials[j]),
                *self.places(fit, trials[j], "refit"),
                self.settings[trials[j].setting],
            )
            for j in found.members
            for fit in (self.fit_of(trials[j]),)
        ]
        self.trainings += len(jobs)
        return [self.read(done) for done in each(fit_trial, jobs, workers=self.run_.runtime.workers)]

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
            "shortened": len(self.shortened),
            "cost": round(self.trainings + sum(self.shortened), 6),
            "proposals": self.spec.proposals,
            "given_up": sorted(self.given_up),
            "diverged": sorted({trial.setting for trial in self.diverged}),
            "selected_on": {"split": "val", "rows": len(self.task.val), "digest": self.task.val.digest},
            "settings": [to_json(setting) for setting in self.settings],
            "members": [
                {"setting": trials[j].setting, "seed": trials[j].column, "weight": weight}
                for j, weight in zip(found.members, found.weights, strict=True)
            ],
            "history": found.history,
        }
