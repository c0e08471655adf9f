"""Progress of a study on a terminal: cells done, epochs of the running ones, time left. Nothing where nobody looks."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from levelhead.studies import store
from levelhead.studies.grid import Cell, epochs_of

LOOK_SECONDS = 0.3


class StudyProgress:
    """A context that shows how a study goes; its methods are the callbacks of `run_study`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.running: dict[Path, tuple[TaskID, int, bool]] = {}
        self.cells: TaskID | None = None
        self.weights: dict[Path, int] = {}
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def __enter__(self) -> Self:
        self.bars.start()
        if self.console.is_terminal:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.bars.stop()

    def on_plan(self, cells: Sequence[Cell], left: Sequence[Cell]) -> None:
        """Told all cells and the unfinished ones."""
        if not self.console.is_terminal:
            return
        done = len(cells) - len(left)
        if done:
            self.console.print(f"[dim]{done} of {len(cells)} cells were finished before[/dim]")
        self.weights = {cell.folder: max(1, epochs_of(cell.fit)) for cell in left}
        names = len({cell.identity for cell in left})
        self.check = self.bars.add_task(f"Checking {names} recipes", total=names, state="")

    def on_check(self, name: str) -> None:
        """Told each recipe that was rehearsed."""
        if self.console.is_terminal:
            self.bars.update(self.check, advance=1, state=f"[dim]{short(name)}[/dim]")

    def watch(self, cell: Cell, state: str) -> None:
        """Told when a cell starts and ends."""
        if not self.console.is_terminal:
            return
        with self.lock:
            if self.cells is None:
                self.bars.remove_task(self.check)
                self.cells = self.bars.add_task("[bold]All cells[/bold]", total=sum(self.weights.values()), state="")
                self.ended = 0
            if state == "started":
                total = self.weights.get(cell.folder, 1)
                bar = self.bars.add_task(f"  {short(cell.name)} [dim]seed {cell.seed}[/dim]", total=total, state="")
                self.running[cell.folder] = (bar, total, False)
                return
            bar, _, _ = self.running.pop(cell.folder)
            self.bars.remove_task(bar)
            if state == store.FAILED:
                self.console.print(f"[red]failed[/red] {cell.name}, seed {cell.seed}")
            if state != "busy":
                self.ended += 1
                self.bars.update(self.cells, advance=self.weights.get(cell.folder, 1), state=self._count())

    def _count(self) -> str:
        return f"{self.ended} of {len(self.weights)} cells"

    def _look(self) -> None:
        """Read how far the running cells are, from their folders."""
        while not self.stop.wait(LOOK_SECONDS):
            with self.lock:
                looked = list(self.running.items())
            for folder, (bar, total, _) in looked:
                done = min(store.progress(folder), total)
                measuring = (folder / "predictor").exists()
                state = "measuring" if measuring else f"epoch {done:.0f} of {total}"
                with self.lock:
                    if folder in self.running:
                        self.bars.update(bar, completed=total if measuring else done, state=state)


def short(name: str, width: int = 44) -> str:
    """A name that fits a line, safe for markup."""
    return (name if len(name) <= width else name[: width - 1] + "…").replace("[", r"\[")


def seconds_text(seconds: float) -> str:
    """`75 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def stopwatch() -> float:
    """Now, in seconds."""
    return time.monotonic()
