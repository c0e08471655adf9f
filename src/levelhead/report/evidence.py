"""What a report is made from: the run folders of one task, read once, with means and standard errors by recipe."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from levelhead.beliefs import ClassBeliefs, Stored, TargetBeliefs
from levelhead.catalogue import name_of, parts
from levelhead.metrics.statistics import over_seeds
from levelhead.report.figure import Series
from levelhead.studies.store import DONE, FAILED, Status, find_cells, read_json, read_records, read_status

B = TypeVar("B", ClassBeliefs, TargetBeliefs)
What = tuple[str, str, int | None, str]  # evaluation, data, severity, metric


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error; of one seed, the error over the choice of test rows, or NaN."""

    mean: float
    error: float
    seeds: int

    @property
    def band(self) -> tuple[float, float]:
        """One standard error below and above the mean; the mean itself where the error is not known."""
        reach = self.error if math.isfinite(self.error) else 0.0
        return self.mean - reach, self.mean + reach

    def near(self, best: "Estimate") -> bool:
        """Whether it is within the standard error of the best, as `levelhead.studies.table.marks` has it."""
        return self.mean == best.mean or abs(self.mean - best.mean) <= best.error


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder."""

    folder: Path
    seed: int
    status: Status
    recipe: dict[str, Any]
    environment: dict[str, Any]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Its measurements."""
        return read_records(self.folder)

    @cached_property
    def values(self) -> dict[What, float]:
        """What was measured."""
        return {(row["evaluation"], row["data"], row["severity"], row["metric"]): row["value"] for row in self.records}

    @cached_property
    def rows(self) -> dict[str, int]:
        """How many rows each suite was measured on, at most."""
        found: dict[str, int] = {}
        for record in self.records:
            found[record["evaluation"]] = max(record["num_examples"], found.get(record["evaluation"], 0))
        return found

    @cached_property
    def by_metric(self) -> dict[tuple[str, str], list[tuple[str, int | None, float]]]:
        """By suite and metric: set, severity and value of each measurement."""
        found = defaultdict(list)
        for (suite, data, severity, metric), value in self.values.items():
            found[suite, metric].append((data, severity, value))
        return dict(found)

    @cached_property
    def stored(self) -> Stored | None:
        """Its raw predictions, read when asked for; None where none were kept."""
        try:
            return Stored(self.folder)
        except FileNotFoundError:
            return None


@dataclass(frozen=True, eq=False)
class Contender:
    """A recipe on a backbone, with its runs over seeds."""

    series: Series
    text: str
    backbone: str
    digest: str
    runs: tuple[Run, ...]
    _known: dict[Any, Estimate | None] = field(default_factory=dict)

    @property
    def done(self) -> tuple[Run, ...]:
        """The runs that finished."""
        return tuple(run for run in self.runs if run.status.state == DONE)

    def beliefs(self, kind: type[B], keys: Sequence[str]) -> Iterator[B]:
        """The stored predictions of all finished runs under those keys, where they are there and of that kind."""
        for run in self.done:
            for key in keys:
                found = run.stored[key] if run.stored is not None and key in run.stored else None
                if isinstance(found, kind):
                    yield found

    def estimate(
        self, metric: str, evaluation: str, data: str | None = None, severity: int | None = None
    ) -> Estimate | None:
        """Mean and standard error of a metric, averaged within each seed over all sets and severities that match.

        data, severity  None: all of them. None where a finished run lacks the metric everywhere.
        """
        name = (metric, evaluation, data, severity)
        if name not in self._known:
            per_seed = [_average(run, metric, evaluation, data, severity) for run in self.done]
            found = [value for value in per_seed if value is not None]
            self._known[name] = _pooled(found) if found else None
        return self._known[name]


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known about the recipes on one task."""

    task: str
    contenders: tuple[Contender, ...]

    @cached_property
    def runs(self) -> list[Run]:
        """Every run folder."""
        return [run for contender in self.contenders for run in contender.runs]

    @cached_property
    def done(self) -> list[Contender]:
        """The recipes with a finished run."""
        return [contender for contender in self.contenders if contender.done]

    @property
    def failed(self) -> list[tuple[Contender, Run]]:
        """The runs that failed."""
        return [(c, run) for c in self.contenders for run in c.runs if run.status.state == FAILED]

    @property
    def unfinished(self) -> list[tuple[Contender, Run]]:
        """The runs that neither finished nor failed."""
        return [(c, run) for c in self.contenders for run in c.runs if run.status.state not in (DONE, FAILED)]

    @cached_property
    def regression(self) -> bool:
        """Whether targets are real numbers."""
        return any(metric == "rmse" for contender in self.done for _, _, _, metric in contender.done[0].values)

    @cached_property
    def names(self) -> set[What]:
        """What some run measured."""
        return {name for contender in self.done for run in contender.done for name in run.values}

    @cached_property
    def shifts(self) -> list[str]:
        """Names of the shifts that come in severities."""
        return sorted(
            {data for evaluation, data, severity, _ in self.names if evaluation == "shift" and severity is not None}
        )

    @cached_property
    def shifted_sets(self) -> list[str]:
        """Names of all shifted sets."""
        return sorted({data for evaluation, data, _, _ in self.names if evaluation == "shift"})

    @cached_property
    def severities(self) -> list[int]:
        """Severities that were measured, growing."""
        return sorted(
            {severity for evaluation, _, severity, _ in self.names if evaluation == "shift" and severity is not None}
        )

    @cached_property
    def strongest_severity(self) -> int | None:
        """Of the severities that all shifts have, the one at which the recipes are right least often; None without.

        The highest one, but for shifts that come round again: an image that rolls on returns to its place.
        """
        measured = {(data, level) for evaluation, data, level, _ in self.names if evaluation == "shift"}
        common = [level for level in self.severities if all((shift, level) in measured for shift in self.shifts)]
        if not common:
            return None
        name = "rmse" if self.regression else "accuracy"
        sign = -1 if self.regression else 1

        def quality(level: int) -> float:
            found = [contender.estimate(name, "shift", None, level) for contender in self.done]
            return sum(sign * estimate.mean for estimate in found if estimate is not None)

        return min(common, key=lambda level: (quality(level), -level))

    @cached_property
    def strongest(self) -> list[str]:
        """Keys of the stored predictions under every shift at the strongest severity."""
        level = self.strongest_severity
        return [] if level is None else [f"shift-{shift}-{level}" for shift in self.shifts]

    @cached_property
    def ood(self) -> list[str]:
        """Names of the sets from outside the distribution."""
        return sorted({data for evaluation, data, _, _ in self.names if evaluation == "ood"})

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of all runs."""
        return sorted({run.seed for run in self.runs})

    @cached_property
    def backbones(self) -> list[str]:
        """Backbones of all runs."""
        return list(dict.fromkeys(contender.backbone for contender in self.contenders))

    @property
    def slug(self) -> str:
        """The task's name as part of an id."""
        return "".join(sign if sign.isalnum() else "-" for sign in self.task)

    @cached_property
    def receipt(self) -> dict[str, Any]:
        """The receipt of the data, from the first run that has one."""
        return next((run.environment["task"] for run in self.runs if "task" in run.environment), {})

    @cached_property
    def published_splits(self) -> bool:
        """Whether seeds stand for published splits of the data."""
        return any("split" in run.environment.get("task", {}).get("args", {}) for run in self.runs)

    @cached_property
    def images(self) -> bool:
        """Whether inputs are images, as far as the shifts tell."""
        tabular = {name_of(cls) for cls in parts("shifts") if cls().kind == "tabular"}
        return not self.regression and not (self.shifts and set(self.shifts) <= tabular)

    @cached_property
    def plain(self) -> Contender | None:
        """The recipe that the others are measured against: the one called plain."""
        return next((contender for contender in self.done if contender.text == "plain"), None)


def read(root: Path, cells: Sequence[Path] | None = None) -> list[Evidence]:
    """The evidence in a folder, task by task; of some run folders only, and in their order, where `cells` names them.

    Raises FileNotFoundError where there is no run folder.
    """
    by_task: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for folder in find_cells(root) if cells is None else cells:
        recipe, status = read_json(folder / "recipe.json"), read_status(folder)
        if recipe is None or status is None:
            continue  # killed before it began
        run = Run(folder, recipe["seed"], status, recipe, read_json(folder / "environment.json") or {})
        by_task[recipe["task"]][recipe["digest"]].append(run)
    if not by_task:
        raise FileNotFoundError(f"{root} holds no run folders; `levelhead compare` writes them")
    return [
        _evidence(task, list(groups.values()), ordered=cells is not None) for task, groups in sorted(by_task.items())
    ]


def _evidence(task: str, groups: list[list[Run]], *, ordered: bool) -> Evidence:
    if not ordered:
        groups = sorted(groups, key=lambda runs: _reading_order(runs[0].recipe))
    contenders = []
    for place, (name, runs) in enumerate(
        zip(_names([runs[0].recipe for runs in groups]), groups, strict=True), start=1
    ):
        recipe, runs = runs[0].recipe, sorted(runs, key=lambda run: run.seed)
        contenders.append(
            Contender(Series(place, name), recipe["text"], recipe["backbone"], recipe["digest"], tuple(runs))
        )
    return Evidence(task, tuple(contenders))


def _names(recipes: list[dict[str, Any]]) -> list[str]:
    """What to call the recipes: their lines; with backbone, as whole text or with digest where that is not enough."""
    several = len({recipe["backbone"] for recipe in recipes}) > 1
    names = [f"{recipe['text']} on {recipe['backbone']}" if several else recipe["text"] for recipe in recipes]
    for rest in (lambda r: r.get("canonical"), lambda r: f"{r['text']} [{r['digest'][:6]}]"):
        alike = {name for name, count in Counter(names).items() if count > 1}
        names = [rest(r) or name if name in alike else name for name, r in zip(names, recipes, strict=True)]
    return names


def _reading_order(recipe: dict[str, Any]) -> tuple[Any, ...]:
    """The plain recipe first, then single parts, then compositions."""
    text = recipe["text"]
    return text != "plain", text.count("+"), text, recipe["backbone"]


def _average(
    run: Run, metric: str, evaluation: str, data: str | None, severity: int | None
) -> tuple[float, float] | None:
    """Means over the sets that match of a metric and of its error within the run: one test set, so that stays."""

    def matching(name: str) -> list[float]:
        measured = run.by_metric.get((evaluation, name), [])
        return [value for known, level, value in measured if data in (None, known) and severity in (None, level)]

    values, errors = matching(metric), matching(f"{metric}_se")
    if not values:
        return None
    return sum(values) / len(values), sum(errors) / len(errors) if errors else math.nan


def _pooled(found: list[tuple[float, float]]) -> Estimate:
    if len(found) == 1:
        return Estimate(*found[0], seeds=1)
    mean, error = over_seeds(torch.tensor([value for value, _ in found], dtype=torch.float64))
    return Estimate(float(mean), float(error), len(found))
