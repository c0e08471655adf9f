"""The local engine: worker processes of one thread each. A worker that dies fails its cell and no other."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from levelhead.processes import become_worker, context
from levelhead.studies.grid import Cell
from levelhead.studies.store import FAILED
from levelhead.studies.work import BUSY, Orders, Outcome, give_up, work
from levelhead.types import LevelheadError

RETRY_SECONDS = 0.5  # between looks at a cell that another process works on
READY = "ready"

Watch = Callable[[Cell, str], None]  # told "started", then how the cell ended


class WorkersDoNotStart(LevelheadError, RuntimeError):
    """Worker processes ended before their first cell; the text says what is usual then."""


def run(cells: Sequence[Cell], orders: Orders, *, workers: int, watch: Watch) -> Iterator[tuple[Cell, Outcome]]:
    """Work on all cells, in the given order, and tell how each ended, as it ends.

    Cells that another process holds come last: they are waited for.
    """
    workers = min(workers, len(cells))
    yield from (_here(cells, orders, watch) if workers < 2 else _side_by_side(cells, orders, workers, watch))


def _here(cells: Sequence[Cell], orders: Orders, watch: Watch) -> Iterator[tuple[Cell, Outcome]]:
    """In this process, one after the other."""
    queue = deque(cells)
    busy = 0
    while queue:
        cell = queue.popleft()
        watch(cell, "started")
        outcome = work(cell, orders)
        watch(cell, outcome.state)
        if outcome.state == BUSY:
            queue.append(cell)
            busy += 1
            if busy >= len(queue):
                time.sleep(RETRY_SECONDS)
                busy = 0
        else:
            yield cell, outcome


class _Worker:
    """A worker process and the cell that it has."""

    def __init__(self, orders: Orders) -> None:
        start = context()
        self.connection, other = start.Pipe()
        self.process: BaseProcess = start.Process(target=_serve, args=(other, orders))  # type: ignore[attr-defined]
        self.process.start()
        other.close()
        self.started = False
        self.cell: Cell | None = None

    def take(self, cell: Cell) -> None:
        """Hand a cell over."""
        self.cell = cell
        self.connection.send(cell)

    def end(self, *, now: bool) -> None:
        """End the process: when it has finished, or now."""
        with suppress(OSError):
            self.connection.close()
        if now:
            self.process.terminate()
        self.process.join()


def _side_by_side(cells: Sequence[Cell], orders: Orders, workers: int, watch: Watch) -> Iterator[tuple[Cell, Outcome]]:
    queue: deque[tuple[float, Cell]] = deque((0.0, cell) for cell in cells)  # not before that time
    staff = [_Worker(orders) for _ in range(workers)]
    try:
        while queue or any(worker.cell for worker in staff):
            _hand_out(queue, staff, watch)
            ready = wait([worker.connection for worker in staff], timeout=RETRY_SECONDS)
            for worker in [worker for worker in staff if worker.connection in ready]:
                said = _heard(worker)
                if said == READY:
                    worker.started = True
                    continue
                cell, worker.cell = worker.cell, None
                if said is None:
                    staff.remove(worker)
                    said = _bury(worker, cell)
                    staff.append(_Worker(orders))
                if cell is None:
                    continue
                watch(cell, said.state)
                if said.state == BUSY:
                    queue.append((time.monotonic() + RETRY_SECONDS, cell))
                else:
                    yield cell, said
        _dismiss(staff, now=False)
    finally:
        _dismiss(staff, now=True)


def _hand_out(queue: deque[tuple[float, Cell]], staff: list[_Worker], watch: Watch) -> None:
    """Give every idle worker the next cell that is due."""
    for worker in staff:
        due = next((place for place, (when, _) in enumerate(queue) if when <= time.monotonic()), None)
        if worker.cell is None and worker.started and due is not None:
            _, cell = queue[due]
            del queue[due]
            worker.take(cell)
            watch(cell, "started")


def _heard(worker: _Worker) -> Any:
    """What a worker said; None when it is gone."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        return None


def _bury(worker: _Worker, cell: Cell | None) -> Outcome:
    """The outcome of a cell whose worker is gone."""
    worker.end(now=False)
    code = worker.process.exitcode
    if not worker.started:
        raise WorkersDoNotStart(
            f"A worker process ended (exit code {code}) before it could start. In a script, call compare() under "
            "`if __name__ == '__main__':` (workers import the script anew); or pass workers=1"
        )
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
    hint = "; memory may have run out: try fewer workers" if code == -9 else ""
    said = f"The worker process ended {how}{hint}"
    return Outcome(FAILED, said) if cell is None else give_up(cell, said)


def _dismiss(staff: list[_Worker], *, now: bool) -> None:
    for worker in staff:
        worker.end(now=now)
    staff.clear()


def _serve(connection: Connection, orders: Orders) -> None:
    """A worker: cells in, outcomes out, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    become_worker()
    connection.send(READY)
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        connection.send(work(cell, orders))
