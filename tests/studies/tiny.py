"""Studies small enough for tests: a few seconds, most of them for starting processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelhead.backbones.mlp import MLP
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task

SMALL = MLP(hidden=(8,))
SUITES = ("clean", "ood")
TIMED = {"train_seconds", "seconds_per_example", "latency"}


def tiny() -> Task:
    """48 images."""
    return stripes(48)


@dataclass(frozen=True)
class FailsOnAllRows:
    """A recipe that passes its rehearsal and fails when it is really fitted, on the given seeds."""

    seeds: tuple[int, ...] = (0,)

    def fit(self, task: Task, seed: int = 0, runtime: Any = None, *, rehearsed: bool = False) -> Any:
        if len(task.train) > 8 and seed in self.seeds:
            raise RuntimeError(f"cannot fit {len(task.train)} rows")
        return Recipe(backbone=SMALL, sampler=SGD(epochs=1)).fit(task, seed, runtime, rehearsed=True)

    def shortened(self) -> "FailsOnAllRows":
        return self


@dataclass(frozen=True)
class Dies(FailsOnAllRows):
    """A recipe whose process is gone in the middle of the fit, as when memory runs out."""

    def fit(self, task: Task, seed: int = 0, runtime: Any = None, *, rehearsed: bool = False) -> Any:
        if len(task.train) > 8 and seed in self.seeds:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(task, -1, runtime)


def finished(root: Path) -> dict[Path, tuple[int, bytes]]:
    """Of every finished cell, when its records were written and what they are."""
    from levelhead.studies.store import DONE, find_cells, read_status

    cells = [cell for cell in find_cells(root) if (status := read_status(cell)) is not None and status.state == DONE]
    return {
        cell: ((cell / "records.parquet").stat().st_mtime_ns, (cell / "records.parquet").read_bytes()) for cell in cells
    }
