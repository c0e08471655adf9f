"""`levelhead diagnose`: what is inside the networks of finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from levelhead.cli.console import err, print_json
from levelhead.cli.options import MEASURING, AsJson, DataDir, Device, Trust, split_commas, task_options
from levelhead.report.diagnosis import write_diagnosis
from levelhead.studies.diagnosis import ANALYSES, Diagnosed, as_data, diagnose
from levelhead.studies.store import DONE, find_cells, read_status


def diagnose_runs(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders, or folders of them: several are compared.", show_default=False
        ),
    ],
    analyses: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAMES",
            help="Some of the analyses, or with settings: aliasing,'lesion_study(limit=2000)'. [dim]default: all of "
            f"{', '.join(ANALYSES)}[/dim]",
            rich_help_panel=MEASURING,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page to write.", show_default="diagnosis.html in the first folder"),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure what has been measured before, too.", rich_help_panel=MEASURING)
    ] = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Look inside finished runs: which frequencies their networks hold, need and fold; what each block is worth.

    Writes one HTML page with a figure and a one-line reading for each analysis. The numbers stay
    beside each run, in records.parquet and diagnosis.json, so that the same command takes no time
    again. Where an analysis says nothing about a network, the page tells why. Nothing is trained.

    \b
    [bold]Examples[/bold]
      levelhead diagnose runs/cifar10/resnet20+sgd-0123456789ab/0
      levelhead diagnose runs/cifar10 --out alternet_beside_resnet.html
      levelhead diagnose runs/cifar10 --only aliasing,shift_consistency --json
    """
    cells = [cell for cell in find_cells(*paths) if _finished(cell)]
    if not cells:
        where = ", ".join(map(str, paths))
        raise FileNotFoundError(f"{where} holds no finished run folder; `levelhead fit` or `compare` makes some")
    found = []
    for number, cell in enumerate(cells, start=1):
        err().print(f"[dim]{number} of {len(cells)}[/dim] {cell}")
        found.append(
            diagnose(
                cell,
                split_commas(analyses) or ANALYSES,
                again=again,
                options=task_options(data_dir),
                device=device,
                trust=tuple(trust or ()),
            )
        )
    if not any(one.measured for one in found):
        raise ValueError(nothing(found))
    reasons = {one.folder: one.left_out for one in found}
    page = write_diagnosis(cells, out or paths[0] / "diagnosis.html", reasons=reasons)
    if as_json:
        print_json({"report": page, "runs": [as_data(one) for one in found]})
    else:
        for why, names in reasons_of(found).items():
            err().print(f"left out {', '.join(names)}: {why}", style="yellow", markup=False)
        print(page)


def nothing(found: list[Diagnosed]) -> str:
    """What to say where no analysis says anything."""
    reasons = [f"{', '.join(names)}: {why}" for why, names in reasons_of(found).items()]
    return "\n  ".join(["no analysis says anything about these runs.", *reasons])


def reasons_of(found: list[Diagnosed]) -> dict[str, list[str]]:
    """The analyses that say nothing about some run, by the reason."""
    reasons: dict[str, list[str]] = {}
    for one in found:
        for name, why in one.left_out.items():
            names = reasons.setdefault(why, [])
            names += [name] if name not in names else []
    return reasons


def _finished(cell: Path) -> bool:
    status = read_status(cell)
    return status is not None and status.state == DONE and (cell / "predictor").exists()
