"""`levelhead fit`: one recipe, and the predictor that comes of it."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from levelhead.cli.compare import failure_lines
from levelhead.cli.console import err, headline_table, print_json, table_json
from levelhead.cli.console import out as stdout
from levelhead.cli.options import (
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
from levelhead.cli.progress import StudyProgress
from levelhead.studies.compare import run_study
from levelhead.studies.store import read_json
from levelhead.studies.study import Study
from levelhead.tasks.load import num_splits


def fit(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A line of text, my_module:function, or the recipe.json of an earlier run.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK",
            help="fashion-mini, cifar10, uci/yacht, ... A recipe.json knows its own.",
            show_default=False,
        ),
    ] = None,
    backbone: Backbones = None,
    seeds: Seeds = "1",
    set_: Changes = None,
    data_dir: DataDir = None,
    suite: Suites = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Copy the predictor to this folder too (of the first seed).", rich_help_panel=RUNNING
        ),
    ] = None,
    root: Root = Path("runs"),
    workers: Workers = None,
    device: Device = "cpu",
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Fit one recipe, measure it on clean test rows, and say where the predictor is.

    The folder that is printed is what `predict` and `evaluate` take, and in Python
    `levelhead.load(FOLDER)`.

    \b
    [bold]Examples[/bold]
      levelhead fit "mc_dropout + temperature" fashion-mini -b lenet --out my_predictor
      levelhead fit sngp cifar10 --data-dir data -b resnet20 --seeds 3 --set sampler.epochs=60
      levelhead fit runs/fashion-mini/lenet-0123456789ab/0/recipe.json
    """
    options = task_options(data_dir)
    if task is None:
        saved = read_json(Path(recipe)) if recipe.endswith(".json") else None
        if saved is None:
            raise ValueError(f"fit wants a task, as in: levelhead fit {recipe!r} fashion-mini")
        task = saved["task"]
        split = {"split"} if num_splits(task) > 1 else set()  # the seed is the split
        options = tuple({**{k: v for k, v in saved["options"].items() if k not in split}, **dict(options)}.items())
        seeds = str((saved["seed"],)) if seeds == "1" else seeds
    study = Study(
        task=task,
        recipes=(recipe,),
        backbones=split_commas(backbone),
        seeds=read_seeds(seeds),
        suites=split_commas(suite) or ("clean",),
        options=options,
        changes=read_changes(set_),
        trust=tuple(trust or ()),
    )
    with StudyProgress(err()) as shown:
        done = run_study(
            study,
            root=root,
            workers=workers,
            device=device,
            on_plan=shown.on_plan,
            on_check=shown.on_check,
            watch=shown.watch,
        )
    places = [cell.folder / "predictor" for cell in done.cells if cell.folder not in done.failures]
    if out is not None and places:
        if out.exists() and not (out / "predictor.json").exists():
            raise ValueError(f"--out {out} exists and is no predictor; name a new folder")
        shutil.copytree(places[0], out, dirs_exist_ok=True)
        places.insert(0, out)
    if as_json:
        print_json({"predictors": places, "table": table_json(done.table()), "failures": list(done.failures.values())})
    else:
        stdout().print(headline_table(done.table()))
        for place in places:
            stdout().print(f"predictor  {place}", markup=False)
        for text in failure_lines(done):
            err().print(text, style="red", markup=False)
    raise typer.Exit(1 if done.failures else 0)
