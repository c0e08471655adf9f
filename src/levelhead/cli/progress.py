"""Progress of a study on a terminal: cells done, epochs of the running ones, time left. Nothing where nobody looks."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from levelhead import shelf
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
            speed_estimate_period=300,
            disable=not console.is_terminal,
        )
        self.running: dict[Path, tuple[TaskID, int]] = {}
        self.cells: TaskID | None = None
        self.weights: dict[Path, int] = {}  # epochs
        self.ended: list[Path] = []
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
            if state == "started":
                total = self.weights.get(cell.folder, 1)
                bar = self.bars.add_task(f"  {short(cell.name)} [dim]seed {cell.seed}[/dim]", total=total, state="")
                self.running[cell.folder] = (bar, total)
                return
            bar, _ = self.running.pop(cell.folder)
            self.bars.remove_task(bar)
            if state == store.FAILED:
                self.console.print(f"[red]failed[/red] {cell.name}, seed {cell.seed}")
            if state != "busy":
                self.ended.append(cell.folder)
                self._count(0.0)

    def _count(self, running: float) -> None:
        if self.cells is not None:
            done = sum(self.weights.get(folder, 1) for folder in self.ended)
            state = f"{len(self.ended)} of {len(self.weights)} cells"
            self.bars.update(self.cells, completed=done + running, state=state)

    def _look(self) -> None:
        """Read how far the running cells are, from their folders."""
        while not self.stop.wait(LOOK_SECONDS):
            with self.lock:
                looked = list(self.running.items())
            epochs = {folder: min(store.progress(folder), total) for folder, (_, total) in looked}
            with self.lock:
                for folder, (bar, total) in looked:
                    if folder in self.running:
                        measuring = (folder / "predictor").exists()
                        state = measured(folder) if measuring else f"epoch {epochs[folder]:.0f} of {total}"
                        self.bars.update(bar, completed=total if measuring else epochs[folder], state=state)
                self._count(sum(epochs[folder] for folder in self.running if folder in epochs))


def measured(folder: Path) -> str:
    """How far the measuring of a cell is, where a long suite tells."""
    found = shelf.progress(folder)
    return "measuring" if found is None else "measuring {}: {} of {}".format(*found)


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
