"""python -m benchmarks [NAME ... | --all] [--quick] [--write]: lists the benchmarks, or runs some."""

import argparse
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType

import benchmarks
from benchmarks.harness import QUICK_ROUNDS, ROUNDS, Row, hold, machine, ratio_lines, table

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
NOT_BENCHMARKS = ("harness", "__main__")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 2 for a name that is no benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help="benchmarks to run; none lists them")
    parser.add_argument("--all", action="store_true", help="run all of them")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller data: does it run, and roughly how")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS}, with --quick {QUICK_ROUNDS})")
    parser.add_argument("--write", action="store_true", help=f"write the tables into docs/{PAGE.name}")
    chosen = parser.parse_args(arguments)
    if chosen.write and chosen.quick:
        parser.error("--write records full runs: leave out --quick")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error(f"--rounds wants at least 1, got {chosen.rounds}")
    known = names()
    wrong = [name for name in chosen.name if name not in known]
    if wrong:
        parser.error(f"{', '.join(wrong)}: no benchmark of that name; there are {', '.join(known)}")
    wanted = known if chosen.all else chosen.name
    if not wanted:
        print(listing(known))
        return 0
    rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    for name in wanted:
        module = load(name)
        rows = list(hold(module.contests(quick=chosen.quick), rounds=rounds))
        text = report(name, rows, rounds=rounds, quick=chosen.quick)
        print(text, *ratio_lines(name, rows), sep="\n", flush=True)
        if chosen.write:
            write(PAGE, name, text)
    return 0


def names() -> list[str]:
    """The benchmarks: every file of this folder but the harness."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if name not in NOT_BENCHMARKS)


def load(name: str) -> ModuleType:
    """A benchmark's module: it has `contests(*, quick)`."""
    return importlib.import_module(f"benchmarks.{name}")


def listing(known: list[str]) -> str:
    """One line a benchmark: its name and what its file says first."""
    width = max(map(len, known))
    first = {name: (inspect.getdoc(load(name)) or "").partition("\n")[0] for name in known}
    return "\n".join(f"{name:{width}}  {line}" for name, line in first.items())


def report(name: str, rows: list[Row], *, rounds: int, quick: bool) -> str:
    """The table of a benchmark, with what it takes to read it."""
    size = " (--quick: smaller than the real thing)" if quick else ""
    told = (
        f"`python -m benchmarks {name}{' --quick' if quick else ''}`, {rounds} rounds{size}, {date.today()}{commit()}."
    )
    return f"{told}\n{machine()}.\n\n{table(rows)}\n"


def commit() -> str:
    """The commit that was measured, and whether files were changed since."""
    git = ["git", "-C", str(PAGE.parent.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {head.strip()}{' with changes' if changed.strip() else ''}"


def write(page: Path, name: str, text: str) -> None:
    """Put `text` between the markers of `name` on the page. Raises ValueError where the page has none."""
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.DOTALL)
    after, count = pattern.subn(lambda _: f"{begin}\n{text}{end}", before)
    if count != 1:
        raise ValueError(f"{page} wants the lines {begin!r} and {end!r} once, and has them {count} times")
    page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
