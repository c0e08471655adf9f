"""`levelhead compare`: the main job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from levelhead.cli.console import LEGEND, err, headline_table, out, print_json, seeds_line, table_json
from levelhead.cli.options import (
    FITTING,
    RUNNING,
    AsJson,
    Backbones,
    Changes,
    DataDir,
    Device,
    Root,
    Seeds,
    Suites,
    Trust,
    Workers,
    read_changes,
    read_seeds,
    split_commas,
    task_options,
)
from levelhead.cli.progress import StudyProgress, seconds_text, stopwatch
from levelhead.report.page import write_report
from levelhead.studies.compare import Comparison, run_study
from levelhead.studies.demo import demo_study
from levelhead.studies.grid import slug
from levelhead.studies.ovadia import ovadia_plan
from levelhead.studies.study import Study, read_study

OVADIA = "ovadia"  # the suite that is a whole study


def compare(
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK", help="fashion-mini, cifar10, uci/yacht, ... or a file study.toml.", show_default=False
        ),
    ] = None,
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE...",
            help="Lines of text, my_module:function, or files recipe.json. 'plain' is the network alone.",
            show_default=False,
        ),
    ] = None,
    backbone: Backbones = None,
    seeds: Seeds = None,
    set_: Changes = None,
    data_dir: DataDir = None,
    suite: Suites = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Ten and more recipes on images inside the package: a few minutes.", rich_help_panel=FITTING
        ),
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="What runs the cells. [dim]default: local[/dim]", rich_help_panel=RUNNING),
    ] = None,
    root: Root = Path("runs"),
    workers: Workers = None,
    device: Device = "cpu",
    trust: Trust = None,
    as_json: AsJson = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an earlier run stopped; this always happens.", hidden=True),
    ] = True,
    report: Annotated[bool, typer.Option(help="Write the page report.html.", rich_help_panel=RUNNING)] = True,
) -> None:
    """Fit several recipes on a task, measure them all, and show how they compare.

    Every fit is kept under --root. Run the same command again after an interruption: what is
    finished is not done again, and what is not goes on where it was. All recipes are checked
    before the first one trains.

    \b
    [bold]Examples[/bold]
      levelhead compare --demo
      levelhead compare fashion-mini -b resnet8 plain mc_dropout "vat + deep_ensemble + temperature"
      levelhead compare cifar10 --data-dir data -b resnet20 plain vat --set sampler.epochs=30
      levelhead compare uci/yacht --data-dir data -b mlp plain deep_ensemble
      levelhead compare study.toml --json
      levelhead compare --suite ovadia --data-dir data
    """
    settings: dict[str, Any] = {
        "backbones": split_commas(backbone),
        "seeds": read_seeds(seeds),
        "suites": split_commas(suite) or None,
        "options": task_options(data_dir),
        "changes": read_changes(set_),
        "engine": engine,
        "trust": tuple(trust or ()),
    }
    settings = {name: value for name, value in settings.items() if value not in (None, ())}
    if OVADIA in settings.get("suites", ()):
        raise typer.Exit(protocol(task, tuple(recipes or ()), settings, root, workers, device, as_json, report))
    if demo:
        if task is not None:
            raise ValueError(f"--demo brings its own task and recipes; leave out {task!r}")
        study = demo_study(**settings)
        root = root / "demo" if root == Path("runs") else root
    elif task is None:
        raise ValueError(
            "compare wants a task and recipes, as in: levelhead compare fashion-mini -b resnet8 plain mc_dropout"
        )
    elif task.endswith(".toml"):
        study = read_study(task, recipes=tuple(recipes or ()), **settings)
    else:
        study = Study(task=task, recipes=tuple(recipes or ("plain",)), **settings)
    done = run(study, root=root, workers=workers, device=device, as_json=as_json, report=report)
    raise typer.Exit(1 if done.failures else 0)


def protocol(
    task: str | None,
    recipes: tuple[str, ...],
    settings: dict[str, Any],
    root: Path,
    workers: int | None,
    device: str,
    as_json: bool,
    report: bool,
) -> int:
    """Run the protocol of Ovadia et al. on a task, or on all of its tasks whose data are there; the exit code."""
    if settings.pop("suites") != (OVADIA,):
        raise ValueError(f"--suite {OVADIA} brings its own suites; name it alone")
    planned = ovadia_plan(task, recipes=recipes, **settings)
    for name, reason in planned.left_out.items():
        err().print(f"left out: {name}: {reason}", style="yellow", markup=False)
    found = [
        run(study, root=root, workers=workers, device=device, as_json=as_json, report=report)
        for study in planned.studies
    ]
    return int(any(comparison.failures for comparison in found))


def run(study: Study, *, root: Path, workers: int | None, device: str, as_json: bool, report: bool) -> Comparison:
    """Run a study with a progress bar, and show what came of it."""
    started = stopwatch()
    with StudyProgress(err()) as shown:
        comparison = run_study(
            study,
            root=root,
            workers=workers,
            device=device,
            on_plan=shown.on_plan,
            on_check=shown.on_check,
            watch=shown.watch,
        )
    folder = root / slug(study.task_name)
    places = [cell.folder for cell in comparison.cells]
    page = write_report(folder, folder / "report.html", cells=places) if report else None
    if as_json:
        print_json(as_data(comparison, page))
    else:
        show(comparison, page, folder, took=seconds_text(stopwatch() - started))
    return comparison


def show(comparison: Comparison, page: Path | None, folder: Path, *, took: str) -> None:
    """The table, the failures, and where things are."""
    table = comparison.table()
    console = out()
    splits = bool(comparison.cells) and "split" in dict(comparison.cells[0].source.options)
    if len(table):
        task, backbones = table["task"].iloc[0], ", ".join(dict.fromkeys(table["backbone"]))
        console.print(
            f"\n[bold]{task}[/bold] [dim]on[/dim] {backbones}[dim], {seeds_line(table, splits=splits)}[/dim]\n"
        )
        console.print(headline_table(table))
        console.print(f"\n[dim]{LEGEND}[/dim]")
    for text in failure_lines(comparison):
        err().print(text, style="red", markup=False)
    console.print(f"results  {folder}", markup=False)
    if page is not None:
        console.print(f"report   {page}", markup=False)
    err().print(f"[dim]took {took}[/dim]")


def failure_lines(comparison: Comparison) -> Sequence[str]:
    """A line for each cell that failed."""
    by_folder = {cell.folder: cell for cell in comparison.cells}
    lines = [
        f"failed: {by_folder[place].name}, seed {by_folder[place].seed}: {error} (see {place / 'status.json'})"
        for place, error in comparison.failures.items()
    ]
    return [*lines, f"{len(lines)} of {len(by_folder)} cells failed; the others are shown"] if lines else []


def as_data(comparison: Comparison, page: Path | None) -> dict[str, Any]:
    """What --json prints."""
    cells = [
        {
            "recipe": cell.name,
            "backbone": cell.backbone,
            "seed": cell.seed,
            "folder": cell.folder,
            "state": "failed" if cell.folder in comparison.failures else "done",
            "error": comparison.failures.get(cell.folder),
        }
        for cell in comparison.cells
    ]
    return {"root": comparison.root, "cells": cells, "table": table_json(comparison.table()), "report": page}
