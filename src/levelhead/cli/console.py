"""What the command line shows: tables and JSON on standard output, everything else on standard error."""

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from levelhead.studies.table import HEADLINE, ROW, marks

PIPE_WIDTH = 140  # of tables that go to a file or another program
LEGEND = "* best   ~ within one standard error of the best"
SIGNS = {"best": ("*", "bold green"), "near": ("~", "green"), "": (" ", "")}
HIDDEN = ("multiply_adds", "crps")  # in --json and the report


def out() -> Console:
    """Standard output."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(width=width, highlight=False)


def err() -> Console:
    """Standard error: progress and remarks."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Machine-readable output: numbers that are none become null."""
    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # numpy's numbers
        return plain(value.item())
    return str(value) if isinstance(value, Path) else value


def table_json(table: Any) -> list[dict[str, Any]]:
    """The headline table as plain rows: {"recipe", ..., "metrics": {key: {"mean", "se"}}}."""

    rows = []
    for row in table.to_dict("records"):
        keys = [key for key in row if f"{key}_se" in row]
        metrics = {key: {"mean": row[key], "se": row[f"{key}_se"]} for key in keys if row[key] == row[key]}
        rows.append(
            {
                **{key: row[key] for key in (*ROW, "seeds")},
                "metrics": metrics,
                "cost": row.get("cost"),
            }
        )
    return rows


def headline_table(table: Any, *, title: str | None = None) -> Table:
    """The headline table for a terminal: a mean and, below it, its standard error."""
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 1), header_style="bold")
    several = table["backbone"].nunique() > 1 if len(table) else False
    shown.add_column("recipe", overflow="fold", ratio=1, min_width=18)
    columns = [column for column in HEADLINE if column.key in table and column.key not in HIDDEN]
    for column in columns:
        shown.add_column(column.title.replace(" ", "\n", 1), justify="right", min_width=6)
    if "cost" in table:
        shown.add_column("predict\ncost", justify="right", min_width=6)
    marked = {column.key: marks(table, column.key) for column in columns}
    for place, row in enumerate(table.to_dict("records")):
        name = Text(row["recipe"])
        if several:
            name.append(f"  on {row['backbone']}", style="dim")
        cells = [name]
        for column in columns:
            mean, se = row[column.key] * column.scale, row[f"{column.key}_se"] * column.scale
            cells.append(number(mean, se, column.digits, SIGNS[marked[column.key][place]]))
        if "cost" in table:
            cells.append(Text(f"{row['cost']:.3g} x" if row["cost"] == row["cost"] else ""))
        shown.add_row(*cells)
    return shown


def number(mean: float, se: float, digits: int, sign: tuple[str, str] = SIGNS[""]) -> Text:
    """`88.1*` above `±0.3`; no error where there is none, and nothing for what was not measured."""
    if mean != mean:
        return Text("")
    digits = 0 if abs(mean) >= 1000 else digits
    text = Text(f"{mean:,.{digits}f}{sign[0]}", style=sign[1])
    if se == se:
        text.append(f"\n±{se:,.{digits}f} ", style="not bold dim")
    return text


def seeds_line(table: Any, *, splits: bool) -> str:
    """What the errors behind ± are."""
    counts = sorted({int(n) for n in table["seeds"]}) if len(table) else []
    what = "splits" if splits else "seeds"
    if counts == [1]:
        return "one seed each; ± is the standard error over the test rows"
    many = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    return f"mean ± standard error over {many} {what}"


def simple_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> Table:
    """A plain table of text."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="bold")
    for place, head in enumerate(heads):
        shown.add_column(head, overflow="fold", no_wrap=place == 0)
    for row in rows:
        shown.add_row(*[Text(cell) for cell in row])
    return shown
