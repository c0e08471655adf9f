"""The life of one cell: take it up where it stands, fit, measure, and leave everything on disk."""

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from levelhead import evaluation
from levelhead.measuring import Record
from levelhead.predictor import Predictor
from levelhead.storage import load, save
from levelhead.studies import store
from levelhead.studies.environment import environment
from levelhead.studies.grid import Cell, Source
from levelhead.studies.store import DONE, FAILED, RUNNING, Status
from levelhead.studies.suites import merged, suite_of
from levelhead.tasks.load import loader_module
from levelhead.tasks.task import Task
from levelhead.training import Runtime
from levelhead.values import TARGET, resolve

BUSY, SKIPPED = "busy", "skipped"  # another process works on it; there was nothing left to do


@dataclass(frozen=True)
class Orders:
    """How cells are worked on; no part of what they are.

    suites   what to measure.
    device   where tensors live.
    workers  processes inside a cell, for the members of ensembles.
    """

    suites: tuple[str, ...] = ()
    device: str = "cpu"
    workers: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: done, skipped, failed (with its error) or busy."""

    state: str
    error: str | None = None


def work(cell: Cell, orders: Orders) -> Outcome:
    """Bring one cell to its end. Errors stay in its status; only interrupts come out."""
    with store.held(cell.folder) as mine:
        if not mine:
            return Outcome(BUSY)
        missing = cell.missing(orders.suites)
        if missing == ():
            return Outcome(SKIPPED)
        status = _taken_up(cell)
        store.write_status(cell.folder, status)
        try:
            with _one_thread(orders.device):
                task = cell.source.load()
                store.write_json(cell.folder / "recipe.json", cell.description)
                store.write_json(cell.folder / "environment.json", environment(task, orders.device))
                predictor, status = _fitted(cell, task, orders, status)
                _measure(cell, predictor, task, orders, status)
        except Exception as error:  # whatever it is, the other cells go on
            said = f"{type(error).__name__}: {error}"
            failed = replace(status, state=FAILED, error=said, traceback=traceback.format_exc())
            store.write_status(cell.folder, failed)
            return Outcome(FAILED, said)
    return Outcome(DONE)


def give_up(cell: Cell, error: str) -> Outcome:
    """Write down that the process that worked on a cell died."""
    with store.held(cell.folder):
        status = store.read_status(cell.folder) or Status()
        store.write_status(cell.folder, replace(status, state=FAILED, error=error, traceback=None))
    return Outcome(FAILED, error)


def measure(
    folder: Path, task: Task, *, suites: tuple[str, ...], device: str = "cpu", trust: tuple[str, ...] = ()
) -> None:
    """Measure the finished predictor of a run folder on some suites, again where that has been done.

    trust  modules that the saved predictor may import; see `levelhead.load`.
    """
    with store.held(folder) as mine:
        status, known = store.read_status(folder), store.read_json(folder / "recipe.json")
        if not mine:
            raise BlockingIOError(f"{folder}: another process works on it; try again when it has finished")
        if status is None or known is None or not (folder / "predictor").exists():
            raise FileNotFoundError(f"{folder} holds no finished predictor; run `levelhead fit` or `compare` first")
        if known["content"] != task.digest:
            raise ValueError(
                f"{folder}: the task {known['task']!r} that loads now has other data than the one this was fitted on"
            )
        predictor = load(folder / "predictor", trust=trust).to(device)
        with _one_thread(device):
            rows = _rows(known, predictor, task, suites, folder)
        store.write_records(folder, rows)
        kept = merged(status.suites, suites)
        store.write_status(folder, replace(status, state=DONE, error=None, traceback=None, suites=kept))


def task_of(folder: Path, *, options: tuple[tuple[str, Any], ...] = (), trust: tuple[str, ...] = ()) -> Task:
    """The task that a run folder was made from; `options` go before those that it wrote down.

    Raises FileNotFoundError where nothing was written down.
    """
    known = store.read_json(folder / "recipe.json")
    if known is None:
        raise FileNotFoundError(f"{folder} has no recipe.json: it was never started")
    if TARGET.fullmatch(known["task"]) and loader_module(known["task"].partition(":")[0]) is None:
        resolve(known["task"], trust=trust)
    return Source(known["task"], tuple({**known["options"], **dict(options)}.items())).load()


def _taken_up(cell: Cell) -> Status:
    """The status to go on from, after clearing away what is of no use."""
    known = store.read_json(cell.folder / "recipe.json")
    status = store.read_status(cell.folder)
    trained = (cell.folder / "predictor").exists()
    other_data = known is not None and known["content"] != cell.content
    if other_data or (status is not None and status.state == FAILED and not trained):
        store.clear(cell.folder)
        status = None
    seconds = _logged_seconds(cell.folder) if status is None or not trained else status.seconds
    suites = () if status is None else status.suites
    return Status(RUNNING, seconds=seconds, suites=suites)


@cache
def _warm() -> None:
    """The first optimiser step of a process loads parts of torch, for seconds: before any time is taken."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=0.1)
    weight.sum().backward()
    optimiser.step()


def _fitted(cell: Cell, task: Task, orders: Orders, status: Status) -> tuple[Predictor, Status]:
    """The predictor, from the folder where it has been finished, else trained on from the last checkpoint."""
    place = cell.folder / "predictor"
    if place.exists():
        return load(place, trust=("*",)).to(orders.device), status  # written below, by us
    _warm()
    started = time.monotonic()
    trials = cell.folder.parent.parent / "trials"  # of one task: searches with other sizes go on from them
    runtime = Runtime(device=orders.device, workers=orders.workers, folder=cell.folder, shared=trials)
    predictor = cell.fit.fit(task, cell.seed, runtime, rehearsed=True)
    status = replace(status, seconds=round(status.seconds + time.monotonic() - started, 3))
    store.write_status(cell.folder, status)
    save(predictor, place)
    for member in cell.folder.rglob("*/predictor"):  # now part of the whole
        shutil.rmtree(member, ignore_errors=True)
    return predictor, status


def _measure(cell: Cell, predictor: Predictor, task: Task, orders: Orders, status: Status) -> None:
    """Measure what has not been measured, and finish."""
    missing = tuple(suite for suite in orders.suites if suite not in status.suites)
    if missing:
        rows = _rows(cell.description, predictor, task, missing, cell.folder)
        if "cost" in missing:
            rows.append({**rows[0], **_train_cost(status.seconds, len(task.train))})
        store.write_records(cell.folder, rows)
    store.write_status(cell.folder, replace(status, state=DONE, suites=merged(status.suites, missing)))


def _rows(
    description: dict[str, Any], predictor: Predictor, task: Task, suites: tuple[str, ...], folder: Path
) -> list[dict[str, Any]]:
    """Measurements with the columns that say which cell they are of."""
    found = evaluation.records(predictor, task, [suite_of(text) for text in suites], keep=folder)
    whose = {
        "task": description["task"],
        "recipe": description["text"],
        "backbone": description["backbone"],
        "digest": description["digest"],
        "seed": description["seed"],
    }
    return [{**whose, **record._asdict()} for record in found]


def _train_cost(seconds: float, rows: int) -> dict[str, Any]:
    return Record("cost", "train", None, "train_seconds", seconds, rows)._asdict()


def _logged_seconds(folder: Path) -> float:
    """Training time that the logs of earlier attempts tell of."""
    return round(sum(line["seconds"] for line in store.last_lines(folder)), 3)


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """One thread while a cell is worked on, in whatever process: sums keep their order, so numbers stay the same."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
