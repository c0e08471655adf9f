"""`levelhead report`: the page of the run folders that are there."""

from pathlib import Path
from typing import Annotated

import typer

from levelhead.cli.console import print_json
from levelhead.cli.options import AsJson
from levelhead.report.page import write_report
from levelhead.studies.store import find_cells


def report(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of run folders: runs, or runs/fashion-mini.")
    ] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page to write.", show_default="FOLDER/report.html")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about all the runs in a folder: tables, figures, failures, receipts.

    The page stands alone: send it by mail, open it in any browser.

    \b
    [bold]Examples[/bold]
      levelhead report runs/fashion-mini
      levelhead report runs --out comparison.html
    """
    if not find_cells(root):
        raise FileNotFoundError(f"{root} holds no run folders; `levelhead compare` makes some")
    page = write_report(root, out or root / "report.html")
    if as_json:
        print_json({"report": page})
    else:
        print(page)
