"""What reproductions share: a study through the ordinary API, means with standard errors, the page between markers."""

import json
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import cpu_count
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from levelhead import evaluation
from levelhead.metrics.statistics import over_seeds
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.tasks.load import load_task
from levelhead.tasks.task import Task

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

# Six of the corruptions and turned images: the fifteen of them all would take longer than most trainings here.
SEVEN = "shifts=(gaussian_noise, shot_noise, defocus_blur, brightness, contrast, pixelate, rotation)"
SEVEN_SHIFTS = f"shift({SEVEN})"


@dataclass(frozen=True)
class Options:
    """How a reproduction runs: seeds, a quick rehearsal or the real thing, and where runs and data are."""

    seeds: int = 3
    quick: bool = False
    root: Path = Path("runs/reproductions")
    data_dir: Path = Path("../shared/data")
    workers: int | None = None

    def epochs(self, number: int) -> int:
        """The number of epochs, or two of them in a rehearsal."""
        return min(number, 2) if self.quick else number


@dataclass(frozen=True)
class Section:
    """A table of a page: its title, header, rows of text, and what to know about it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", self.note] if self.note else lines)


@dataclass(frozen=True)
class Measured:
    """The records of a study, a row a measurement."""

    records: pd.DataFrame

    def values(
        self,
        recipe: str,
        metric: str,
        *,
        evaluation: str = "clean",
        severity: int | None = None,
        data: str | None = None,
    ) -> list[float]:
        """One number a seed: the mean over the evaluation's sets (and severities, unless one is named)."""
        found = self.records.query("recipe == @recipe and evaluation == @evaluation and metric == @metric")
        if severity is not None:
            found = found[found["severity"] == severity]
        if data is not None:
            found = found[found["data"] == data]
        if found.empty:
            raise KeyError(
                f"nothing was measured for {recipe!r}: {evaluation}/{metric}, severity {severity}, data {data}"
            )
        return [float(value) for value in found.groupby("seed")["value"].mean()]

    def cell(self, recipe: str, metric: str, *, digits: int = 3, scale: float = 1.0, **where: Any) -> str:
        """Mean and standard error over seeds, as text."""
        return number([scale * value for value in self.values(recipe, metric, **where)], digits)


def number(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard error over seeds, as text."""
    mean, error = over_seeds(torch.tensor(values, dtype=torch.float64))
    return f"{float(mean):.{digits}f} ± {float(error):.{digits}f}"


def study(
    options: Options,
    task: str | Task,
    recipes: Sequence[Any],
    *,
    backbone: str,
    changes: Mapping[str, Any] | None = None,
    suites: Sequence[str] = ("clean", SEVEN_SHIFTS, "ood"),
    seeds: int | Sequence[int] | None = None,
    **task_options: Any,
) -> Measured:
    """Run a study under the common root (equal cells are trained once) and read what it measured."""
    comparison = compare(
        task,
        recipes,
        backbones=backbone,
        seeds=options.seeds if seeds is None else seeds,
        suites=suites,
        changes=changes,
        root=options.root,
        workers=options.workers,
        **task_options,
    )
    if comparison.failures:
        folder, error = next(iter(comparison.failures.items()))
        raise SystemExit(f"{len(comparison.failures)} cells failed, the first in {folder}: {error}")
    return Measured(comparison.records())


def by_passes(
    options: Options,
    task: str,
    recipes: Sequence[str],
    passes: Sequence[int],
    *,
    backbone: str,
    suites: Sequence[str] = ("clean", SEVEN_SHIFTS, "ood"),
) -> dict[int, Measured]:
    """What recipes that draw measure by the number of passes: trained once, evaluated once for each number."""
    comparison = compare(
        task,
        recipes,
        backbones=backbone,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
    )
    data = load_task(task)
    found: dict[int, list[dict[str, Any]]] = {n: [] for n in passes}
    for cell in comparison.cells:
        predictor = load(cell.folder / "predictor")
        for n in passes:
            for network in predictor.networks():
                network.num_samples = n
            measured = evaluation.records(predictor, data, suites)
            found[n] += [{**record._asdict(), "recipe": cell.name, "seed": cell.seed} for record in measured]
    return {n: Measured(pd.DataFrame(rows)) for n, rows in found.items()}


def remembered(place: Path, make: Callable[[], Any]) -> Any:
    """Plain numbers that are measured once: from the file at `place`, or made and written there."""
    if not place.exists():
        found = make()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found))
    return json.loads(place.read_text())


def document(name: str, sections: Sequence[Section], options: Options) -> str:
    """The measured part of a page: how to repeat it, when and where it ran, and the tables."""
    command = f"python -m reproductions {name} --seeds {options.seeds}"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    machine = f"{cpu_count()} cores of {platform.machine()}, torch {torch.__version__.split('+')[0]}, no GPU"
    head = (
        f"Measured with `{command}` on {datetime.now(UTC):%Y-%m-%d}, commit {commit.strip() or 'unknown'}, {machine}. "
        f"Mean ± standard error over {options.seeds} seeds, unless a table says otherwise."
    )
    return "\n\n".join([head, *(section.markdown() for section in sections)])


def write_between_markers(page: Path, text: str) -> None:
    """Put `text` between the page's markers, and leave the rest of the page alone."""
    body = page.read_text(encoding="utf-8")
    before, found, rest = body.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{page} has no place for measurements; put these two lines into it:\n{BEGIN}\n{END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
