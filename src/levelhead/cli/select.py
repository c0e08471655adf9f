"""`levelhead select`: an ensemble of runs that are there already."""

from pathlib import Path
from typing import Annotated, Any

import typer

from levelhead.cli.console import out as stdout
from levelhead.cli.console import print_json, simple_table
from levelhead.cli.options import RUNNING, AsJson, DataDir, Device, Trust, task_options
from levelhead.storage import save
from levelhead.studies.grid import Source
from levelhead.studies.select import Selected, finished_runs, select
from levelhead.studies.store import read_json, write_json


def select_runs(
    roots: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Run folders, or folders of them, all on one task.", show_default=False
        ),
    ],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Different runs at most in the ensemble.")] = 4,
    objective: Annotated[
        str, typer.Option("--objective", help="What falls with each pick: nll, accuracy, nll-acc or brier.")
    ] = "nll",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Save the ensemble to this folder.", show_default=False, rich_help_panel=RUNNING
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Make an ensemble of finished runs: greedily, with replacement, by the validation rows.

    The run that lowers the score of the averaged probabilities most is added again and again. Test rows have no say,
    and nothing is trained.

    \b
    [bold]Examples[/bold]
      levelhead select runs/fashion-mini --k 4 --out my_ensemble
      levelhead evaluate my_ensemble --task fashion-mini
    """
    known = read_json(finished_runs(*roots)[0] / "recipe.json")
    options = {**known["options"], **dict(task_options(data_dir))}
    task = Source(known["task"], tuple(options.items())).load()
    found = select(*roots, task=task, k=k, objective=objective, device=device, trust=tuple(trust or ()))
    told = described(found)
    if out is not None:
        save(found.predictor, out)
        write_json(out / "selection.json", {"objective": objective, "split": "val", **told})
    if as_json:
        print_json(told)
        return
    rows = [(str(m["folder"]), f"{m['weight']:.3f}", f"{m['score']:.4f}") for m in told["members"]]
    title = f"{len(rows)} of {told['considered']} runs, picked by {objective} on {len(task.val)} validation rows"
    stdout().print(simple_table(("run", "weight", f"{objective} with it"), rows, title=title))


def described(found: Selected) -> dict[str, Any]:
    """The selection as plain values: members with their weights, and the score when each came in."""
    selection = found.selection
    members = [
        {
            "folder": str(folder),
            "recipe": read_json(folder / "recipe.json")["text"],
            "weight": weight,
            "score": selection.history[selection.indices.index(member)],
        }
        for folder, weight, member in zip(found.folders, selection.weights, selection.members, strict=True)
    ]
    return {"members": members, "history": list(selection.history), "considered": len(found.considered)}
