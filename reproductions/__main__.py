"""python -m reproductions [NAME] [--seeds 3] [--quick]: measure a paper's claim and write the table into its page."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import reproductions
from reproductions.harness import Options, document


def names() -> list[str]:
    """The reproductions: every module of this package with a `run`."""
    files = [module.name for module in pkgutil.iter_modules(reproductions.__path__)]
    return sorted(set(files) - {"harness", "__main__"})


def main(argv: list[str] | None = None) -> int:
    """Run what the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reproductions", description=__doc__)
    parser.add_argument("name", nargs="*", help="what to reproduce; none lists what there is")
    parser.add_argument("--seeds", type=int, default=3, help="independent runs of everything (default 3)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal of minutes: few epochs, no page is written")
    parser.add_argument(
        "--root", type=Path, default=Path("runs/reproductions"), help="where runs are kept, and resumed"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("../shared/data"), help="folder with cifar10/, mnist/, uci/"
    )
    parser.add_argument("--workers", type=int, default=None, help="processes; by default one a core")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.name) - set(names()))
    if unknown:
        print(f"There is no reproduction {unknown[0]!r}; there are {', '.join(names())}.", file=sys.stderr)
        return 2
    if not given.name:
        for name in names():
            print(f"{name:24} {(importlib.import_module(f'reproductions.{name}').__doc__ or '').splitlines()[0]}")
        return 0
    options = Options(given.seeds, given.quick, given.root, given.data_dir, given.workers)
    for name in given.name:
        sections = importlib.import_module(f"reproductions.{name}").run(options)
        page = Path("docs/methods") / f"{name}.md"
        text = document(name, sections, options)
        print(text)
        if not given.quick:
            reproductions.harness.write_between_markers(page, text)
            print(f"written into {page}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
