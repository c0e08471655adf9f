"""csv:PATH, a table with a header: one row an example, one column the target, the others numbers."""

from csv import reader
from pathlib import Path

import numpy as np

from levelhead.tasks.own import from_tensors
from levelhead.tasks.task import Task


def csv(path: str | Path, *, target: str | None = None, classify: bool | None = None, seed: int = 0) -> Task:
    """A task of the rows of a CSV file with a header: 60 % train, 10 % val, 10 % calibration, 20 % test, by `seed`.

    target    the column to predict; None takes the last. All others are features, in their order.
    classify  whether the target's values are classes; None: they are if one of them is not a number.

    A file that ends in .tsv is read with tabs. Raises ValueError, with the place, for a feature that is no number, a
    ragged line, or a target that is no column.
    """
    where = Path(path).expanduser()
    header, columns = read_columns(where)
    chosen = header[-1] if target is None else target
    if chosen not in columns:
        raise ValueError(f"{where}: target {chosen!r} is no column; there are {', '.join(header)}")
    values = columns.pop(chosen)
    if not columns:
        raise ValueError(f"{where}: there is no column beside the target {chosen!r}")
    x = np.stack([numbers(where, name, column) for name, column in columns.items()], axis=1)
    names = tuple(columns)
    name, args = f"csv:{where.name}", {"target": chosen}
    if classify or (classify is None and not all(is_number(value) for value in values)):
        classes = sorted(set(values), key=lambda value: (float(value) if is_number(value) else np.inf, value))
        y = np.array([classes.index(value) for value in values])
        return from_tensors(x, y, classes=classes, name=name, seed=seed, args=args, columns=names)
    return from_tensors(x, numbers(where, chosen, values), name=name, seed=seed, args=args, columns=names)


def read_columns(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The header of a table, and its columns by name."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        lines = [line for line in reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",") if line]
    if len(lines) < 2:
        raise ValueError(f"{path}: wants a header and at least one row")
    header, *rows = [[cell.strip() for cell in line] for line in lines]
    if len(set(header)) != len(header):
        raise ValueError(f"{path}: two columns have the same name in {', '.join(header)}")
    ragged = next((place for place, row in enumerate(rows, start=1) if len(row) != len(header)), None)
    if ragged is not None:
        raise ValueError(f"{path}: row {ragged} has {len(rows[ragged - 1])} cells, the header {len(header)}")
    return header, {name: [row[place] for row in rows] for place, name in enumerate(header)}


def numbers(path: Path, name: str, values: list[str]) -> np.ndarray:
    """A column as float64. Raises ValueError with the place of what is no number."""
    wrong = next((place for place, value in enumerate(values, start=1) if not is_number(value)), None)
    if wrong is not None:
        raise ValueError(
            f"{path}: row {wrong} of column {name!r} is {values[wrong - 1]!r}; wants a number. "
            "Fill or drop missing values, and turn words into numbers or leave the column out"
        )
    return np.array([float(value) for value in values])


def is_number(value: str) -> bool:
    """Whether a cell holds a finite number."""
    try:
        return bool(np.isfinite(float(value)))
    except ValueError:
        return False
