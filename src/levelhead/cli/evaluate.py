"""`levelhead evaluate`: measure predictors that are there already."""

from pathlib import Path
from typing import Annotated, Any

import typer

from levelhead import evaluation
from levelhead.arrays import SUFFIXES
from levelhead.cli.console import headline_table, print_json, simple_table, table_json
from levelhead.cli.console import out as stdout
from levelhead.cli.options import MEASURING, AsJson, DataDir, Device, Suites, Trust, split_commas, task_options
from levelhead.storage import load
from levelhead.studies.audit import Audit, audit, is_predictions
from levelhead.studies.grid import Source
from levelhead.studies.store import find_cells
from levelhead.studies.suites import study_suites, suite_of
from levelhead.studies.table import headline, records
from levelhead.studies.work import measure, task_of


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Run folders, folders of run folders, or saved predictors; or predictions of any library: "
            ".safetensors, .npz or .csv files, and folders of them.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            help="For a saved predictor: what to measure it on. Run folders know.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    suite: Suites = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the measurements to this file too: .csv or .parquet.", rich_help_panel=MEASURING
        ),
    ] = None,
    void: Annotated[
        int | None,
        typer.Option("--void", help="For predictions: the label of rows that do not count.", rich_help_panel=MEASURING),
    ] = None,
    device: Device = "cpu",
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Measure finished predictors, again or on other suites, without training; or predictions alone.

    What is measured on a run folder is written into it: `report` shows it from then on. Files of predictions are
    checked and scored with a receipt: digest, rows, what was computed from what.

    \b
    [bold]Examples[/bold]
      levelhead evaluate runs/fashion-mini --suite shift,ood
      levelhead evaluate my_predictor --task fashion-mini --suite clean --json
      levelhead evaluate predictions.npz --suite "clean(metrics='all')" --json
    """
    files = [path for path in paths if is_predictions(path)]
    if files:
        if len(files) < len(paths):
            raise ValueError("files of predictions are scored by themselves: give them, or run folders and predictors")
        show_audit(audit(files, suites=split_commas(suite) or None, void=void), out=out, as_json=as_json)
        return
    if void is not None:
        raise ValueError("--void is for files of predictions; a task knows which of its labels do not count")
    saved = [path for path in paths if (path / "predictor.json").exists()]
    cells = find_cells(*[path for path in paths if path not in saved])
    for path in paths:
        if path not in saved and not find_cells(path):
            raise FileNotFoundError(
                f"{path} holds no run folder, no predictor.json and no predictions ({', '.join(SUFFIXES)}); "
                "`levelhead fit` writes run folders"
            )
    suites = split_commas(suite) or None
    given: dict[str, Any] = {"options": task_options(data_dir), "device": device, "trust": tuple(trust or ())}
    rows = [row for path in saved for row in measure_saved(path, task, suites=suites, **given)]
    for folder in cells:
        measure_cell(folder, suites=suites, **given)
    if out is not None:
        write(out, rows, cells)
    table = headline(*cells) if cells else None
    if as_json:
        found = [] if table is None else records(*cells).to_dict("records")
        print_json({"table": [] if table is None else table_json(table), "records": [*rows, *found]})
        return
    if table is not None:
        stdout().print(headline_table(table))
    if rows:
        stdout().print(records_table(rows))


def show_audit(found: Audit, *, out: Path | None, as_json: bool) -> None:
    """Measurements of predictions, and their receipts."""
    rows = [record._asdict() for record in found.records]
    if out is not None:
        write(out, rows, [])
    if as_json:
        print_json({"records": rows, "receipts": list(found.receipts), "environment": found.environment})
        return
    stdout().print(records_table(rows))
    lines = [
        (
            receipt["file"],
            receipt["scored_as"],
            str(receipt["rows"]),
            receipt["sha256"][:16],
            "; ".join(f"{name}: {how}" for name, how in receipt["computed"].items()) or "nothing",
        )
        for receipt in found.receipts
    ]
    stdout().print(simple_table(("file", "scored as", "rows", "sha256", "computed"), lines, title="Receipts"))


def measure_cell(
    folder: Path,
    *,
    suites: tuple[str, ...] | None,
    options: tuple[tuple[str, Any], ...],
    device: str,
    trust: tuple[str, ...],
) -> None:
    """Measure one run folder on its own task."""
    task = task_of(folder, options=options, trust=trust)
    measure(folder, task, suites=study_suites(suites, task), device=device, trust=trust)


def measure_saved(
    path: Path,
    name: str | None,
    *,
    suites: tuple[str, ...] | None,
    options: tuple[tuple[str, Any], ...],
    device: str,
    trust: tuple[str, ...],
) -> list[dict[str, Any]]:
    """The measurements of one saved predictor."""
    if name is None:
        raise ValueError(f"{path} is a saved predictor, which knows no task: say --task, such as --task fashion-mini")
    task = Source(name, options).load()
    predictor = load(path, trust=trust).to(device)
    specs = [suite_of(text) for text in study_suites(suites, task)]
    return [{"predictor": str(path), **record._asdict()} for record in evaluation.records(predictor, task, specs)]


def records_table(rows: list[dict[str, Any]]) -> Any:
    """Measurements for a terminal: no standard errors, no severities but as part of the name."""
    lines = []
    for row in rows:
        data = row["data"] if row["severity"] is None else f"{row['data']} {row['severity']}"
        if not row["metric"].endswith("_se"):
            named = (row["predictor"],) if "predictor" in row else ()
            lines.append((*named, row["evaluation"], data, row["metric"], f"{row['value']:.5g}"))
    head = ("suite", "data", "metric", "value")
    return simple_table(("predictor", *head) if rows and "predictor" in rows[0] else head, lines)


def write(out: Path, rows: list[dict[str, Any]], cells: list[Path]) -> None:
    """All measurements as one file."""
    import pandas

    parts = [pandas.DataFrame(rows)] if rows else []
    parts += [records(*cells)] if cells else []
    table = pandas.concat(parts, ignore_index=True)
    if out.suffix == ".parquet":
        table.to_parquet(out, index=False)
    elif out.suffix == ".csv":
        table.to_csv(out, index=False)
    else:
        raise ValueError(f"--out wants a name that ends in .csv or .parquet, got {out}")
