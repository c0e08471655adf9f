"""The main job: compare recipes on a task, side by side, resuming whatever earlier runs left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from typing import Any

from levelhead.network import Backbone
from levelhead.studies import local, table
from levelhead.studies.corruption_error import corruption_error
from levelhead.studies.grid import Cell, check, epochs_of, plan
from levelhead.studies.local import Watch
from levelhead.studies.store import FAILED
from levelhead.studies.study import RecipeLike, Study, as_seeds
from levelhead.studies.suites import study_suites
from levelhead.studies.work import Orders, Outcome
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Comparison:
    """What a study came to; printing it shows its table.

    cells     the cells of the study, in its order.
    failures  the errors of the cells that failed.
    root      the folder of all run folders.
    """

    root: Path
    cells: tuple[Cell, ...]
    failures: Mapping[Path, str] = field(default_factory=dict)

    def table(self) -> Any:
        """The headline table; see `levelhead.studies.table.headline`."""
        return table.headline(*self._measured(), names=self._names())

    def summary(self) -> Any:
        """Mean and standard error of everything that was measured."""
        return table.summary(*self._measured(), names=self._names())

    def records(self) -> Any:
        """Everything that was measured, cell by cell."""
        return table.records(*self._measured(), names=self._names())

    def corruption_error(self, baseline: str | None = None) -> Any:
        """Mean corruption error, and of NLL and ECE; see `levelhead.studies.corruption_error`."""
        return corruption_error(*self._measured(), baseline=baseline, names=self._names())

    def __str__(self) -> str:
        lines = [self.table().to_string(index=False, float_format="%.4g")]
        lines += [f"failed: {folder}: {error}" for folder, error in self.failures.items()]
        return "\n".join(lines)

    def _measured(self) -> list[Path]:
        return [cell.folder for cell in self.cells]

    def _names(self) -> dict[Path, str]:
        return {cell.folder: cell.name for cell in self.cells}


def compare(
    task: str | Task,
    recipes: Sequence[RecipeLike],
    *,
    backbones: str | Backbone | Sequence[str | Backbone] = (),
    seeds: int | Sequence[int] | None = None,
    suites: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    root: str | Path = "runs",
    workers: int | None = None,
    device: str = "cpu",
    **options: Any,
) -> Comparison:
    """Fit every recipe on every backbone and seed, measure them all, and keep everything under `root`.

    recipes   lines of text ("mc_dropout + temperature"), `module:function`, files recipe.json, functions of a backbone,
              or values with a `fit`.
    seeds     how many, or which; on `uci/<name>` the published splits of these numbers, all of them by default.
    suites    what to measure; by default everything that suits the task.
    changes   {path: value}, written into every recipe that has the path: {"sampler.epochs": 5}.
    workers   processes of one thread; by default as many as there are cores. Scripts need `if __name__ == "__main__":`.
    options   of `load_task`, such as data_dir.

    Finished cells are not fitted again, unfinished ones go on, failed ones are tried again. Nothing trains before all
    recipes have been rehearsed: BadStudy lists everything that is wrong. A cell that fails later leaves its error in
    `failures`, and the others go on.
    """
    several = backbones if isinstance(backbones, Sequence) and not isinstance(backbones, str) else (backbones,)
    study = Study(
        task=task,
        recipes=tuple(recipes),
        backbones=tuple(several),
        seeds=as_seeds(seeds),
        suites=None if suites is None else tuple(suites),
        options=tuple(options.items()),
        changes=tuple((changes or {}).items()),
    )
    return run_study(study, root=root, workers=workers, device=device)


def run_study(
    study: Study,
    *,
    root: str | Path = "runs",
    workers: int | None = None,
    device: str = "cpu",
    on_plan: Callable[[Sequence[Cell], Sequence[Cell]], None] | None = None,
    on_check: Callable[[str], None] | None = None,
    watch: Watch | None = None,
) -> Comparison:
    """Run a study; see `compare`.

    on_plan   told all cells, and those with work left.
    on_check  told the name of each recipe that has been rehearsed.
    watch     told (cell, "started"), then (cell, "done" or another end).
    """
    root = Path(root)
    cells = plan(study, root)
    suites = study_suites(study.suites, cells[0].source.load())
    open_cells = [cell for cell in cells if cell.missing(suites) != ()]
    if on_plan is not None:
        on_plan(cells, open_cells)
    untrained = [cell for cell in open_cells if cell.missing(suites) is None]
    seconds = check(untrained, on_check)
    open_cells.sort(key=lambda cell: -guess(cell, seconds.get(cell.identity, 0.0)))
    count = workers or cpu_count() or 1
    # cores that no cell has go to the members inside the cells; the numbers are the same either way
    inside = max(1, count // len(open_cells)) if open_cells else 1
    orders = Orders(suites, device, inside)
    failures: dict[Path, str] = {}
    for cell, outcome in local.run(open_cells, orders, workers=count, watch=watch or _ignore):
        _note(failures, cell, outcome)
    return Comparison(root, tuple(cells), failures)


def guess(cell: Cell, rehearsed: float) -> float:
    """What a cell will cost, in some unit: long ones go first, so that none is left over at the end."""
    size = getattr(cell.fit, "size", 1)
    return rehearsed * epochs_of(cell.fit) / min(size, 2)  # a rehearsal has two members at most


def _note(failures: dict[Path, str], cell: Cell, outcome: Outcome) -> None:
    if outcome.state == FAILED:
        failures[cell.folder] = outcome.error or "unknown"


def _ignore(cell: Cell, state: str) -> None:
    """Nobody watches."""
