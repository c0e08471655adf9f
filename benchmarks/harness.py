"""Contests: the same work done by us and by rivals, in turns, timed by the wall clock and by processor time.

A ratio is the median over rounds of ours / theirs within a round: who takes turns meets the same weather.
"""

import gc
import importlib.util
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

OURS = "levelhead"
PROC = Path("/proc")
ROUNDS, QUICK_ROUNDS = 5, 2


class Timing(NamedTuple):
    """One turn: seconds by the clock, and seconds of processor time of this process and of the workers below it."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Rival:
    """The same work done otherwise.

    run      does the work once; what it returns is thrown away.
    threads  of torch in this process while it runs.
    needs    modules without which it cannot run.
    what     one line about it, for the reader of the table.
    share    the part of the work that it does: its seconds are divided by it.
    """

    run: Callable[[], object]
    threads: int = 1
    needs: tuple[str, ...] = ()
    what: str = ""
    share: float = 1.0

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules it needs that are not installed."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)


@dataclass(frozen=True)
class Contest:
    """One piece of work: ours, and the rivals by the name of their row.

    warm_up  whether everybody runs once before the first round, untimed (short pieces of work want it).
    """

    ours: Callable[[], object]
    rivals: Mapping[str, Rival]
    what: str = ""
    threads: int = 1
    warm_up: bool = True


@dataclass(frozen=True)
class Row:
    """What a contest with one rival came to: a timing of each a round, or the modules that the rival wants."""

    name: str
    ours: tuple[Timing, ...] = ()
    theirs: tuple[Timing, ...] = ()
    what: str = ""
    missing: tuple[str, ...] = field(default=())

    @property
    def ratios(self) -> list[float]:
        """Ours / theirs by the clock, a round."""
        return [mine.wall / other.wall for mine, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios; below 1 we are faster."""
        return statistics.median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """The same of processor time, in which a busy machine shows less."""
        return statistics.median(mine.cpu / other.cpu for mine, other in zip(self.ours, self.theirs, strict=True))


def hold(contests: Iterable[Contest], *, rounds: int) -> Iterator[Row]:
    """Hold the contests, one after the other; the rows of each come when it is over."""
    for contest in contests:
        yield from rows_of(contest, rounds=rounds)


def rows_of(contest: Contest, *, rounds: int) -> list[Row]:
    """All rounds of a contest. Who begins changes from round to round; a rival that is not installed sits out."""
    present = {OURS: Rival(contest.ours, contest.threads)}
    present |= {name: rival for name, rival in contest.rivals.items() if not rival.missing}
    turns: dict[str, list[Timing]] = {name: [] for name in present}
    if len(present) > 1:
        order = list(present)
        if contest.warm_up:
            for name in order:
                timed(present[name])
        for _ in range(rounds):
            for name in order:
                turns[name].append(timed(present[name]))
            order = [*order[1:], order[0]]
    return [
        Row(name, missing=rival.missing, what=rival.what)
        if rival.missing
        else Row(name, tuple(turns[OURS]), tuple(turns[name]), what=rival.what)
        for name, rival in contest.rivals.items()
    ]


def timed(rival: Rival) -> Timing:
    """One turn, with that rival's number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(rival.threads)
    gc.collect()
    try:
        wall, cpu = time.perf_counter(), processor_seconds()
        rival.run()
        return Timing(
            (time.perf_counter() - wall) / rival.share,
            (processor_seconds() - cpu) / rival.share,
        )
    finally:
        torch.set_num_threads(before)


def processor_seconds() -> float:
    """Processor time, user and system, of this process and of all below it, ended or alive.

    Where there is no /proc, those alive are left out.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = sum(ticks(process) for process in below(os.getpid())) / os.sysconf("SC_CLK_TCK")
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def below(process: int) -> Iterator[int]:
    """The descendants of a process that are alive."""
    for listed in PROC.glob(f"{process}/task/*/children"):
        with suppress(OSError):  # it has ended meanwhile
            for child in listed.read_text().split():
                yield int(child)
                yield from below(int(child))


def ticks(process: int) -> int:
    """Clock ticks that a process and its children that were waited for have used; 0 when it has ended meanwhile."""
    try:
        after_name = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in after_name[11:15])  # utime, stime, cutime, cstime of proc(5)


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table: medians of seconds, and the spread of the ratio over the rounds."""
    lines = [
        "| row | levelhead, s | rival, s | ours / theirs | lowest to highest | by processor time | rival |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        if row.missing:
            lines.append(f"| {row.name} | | | | | | not installed: {', '.join(row.missing)} |")
            continue
        mine, other = (statistics.median(turn.wall for turn in turns) for turns in (row.ours, row.theirs))
        spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
        lines.append(
            f"| {row.name} | {seconds(mine)} | {seconds(other)} | {row.ratio:.3f} | {spread} | {row.cpu_ratio:.2f} "
            f"| {row.what} |"
        )
    return "\n".join(lines)


def ratio_lines(benchmark: str, rows: Iterable[Row]) -> list[str]:
    """For each row that was run, the line that other programs read."""
    return [f"ratio {benchmark}/{row.name} {row.ratio:.4f}" for row in rows if not row.missing]


def seconds(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def machine() -> str:
    """The machine in words: processor, cores, how busy it was, and what computed."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{processor()}, {os.cpu_count()} cores, load {load}; torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}"
    )


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
