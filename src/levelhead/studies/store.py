"""Run folders: one a cell, written so that a kill at any moment leaves the old file or the new one.

    <root>/<task>/<recipe>-<digest>/<seed>/
        recipe.json          what was fitted: line, value, task, options, backbone, seed, digest
        environment.json     versions, commit, device, receipt of the task
        train.jsonl          the training log; state.pt, the checkpoint while training; member-K/ for ensembles
        predictor/           the finished predictor
        predictions/         raw predictions, so that a new metric needs no new forward pass
        records.parquet      the measurements
        status.json          {"state": "running" | "done" | "failed", "seconds", "error", "traceback", "suites"}

One process at a time works on a cell: it holds a lock of the system's on `.lock`, which ends with the process. So a
status "running" whose lock is free was left by a kill, and the cell is taken up again.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from levelhead.processes import held as held
from levelhead.types import require

RUNNING, DONE, FAILED = "running", "done", "failed"
COLUMNS = (
    "task", "recipe", "backbone", "digest", "seed", "evaluation", "data", "severity", "metric", "value", "num_examples"
)  # fmt: skip
WHAT = ("evaluation", "data", "severity", "metric")  # what names a measurement within a cell


@dataclass(frozen=True)
class Status:
    """Where a cell stands.

    state          running, done or failed.
    seconds        training time so far, over all attempts.
    error          one line; traceback: all lines. Of failed cells.
    suites         what has been measured.
    """

    state: str = RUNNING
    seconds: float = 0.0
    error: str | None = None
    traceback: str | None = None
    suites: tuple[str, ...] = ()


def read_status(folder: Path) -> Status | None:
    """The status of a cell, or None where there is no cell."""
    found = read_json(folder / "status.json")
    if found is None:
        return None
    known = {field.name for field in fields(Status)}
    found["suites"] = tuple(found.get("suites", ()))
    return Status(**{key: value for key, value in found.items() if key in known})


def write_status(folder: Path, status: Status) -> None:
    """Write the status of a cell in one move."""
    write_json(folder / "status.json", asdict(status))


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one move."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, that becomes `path` in one move when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_records(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add measurements to a cell. A suite that is measured again replaces all that it said before.

    What the training told (data "train") stays: no measurement afterwards knows it.
    """
    pyarrow, parquet = require("pyarrow", extra="study"), require("pyarrow.parquet", extra="study")
    path = folder / "records.parquet"
    again = {row["evaluation"] for row in rows}
    old = [row for row in read_records(folder) if row["evaluation"] not in again or row["data"] == "train"]
    kept = {tuple(row[key] for key in WHAT): row for row in [*old, *rows]}
    kinds = {
        "seed": pyarrow.int64(),
        "severity": pyarrow.int64(),
        "num_examples": pyarrow.int64(),
        "value": pyarrow.float64(),
    }
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    with replacing(path) as scratch:
        parquet.write_table(pyarrow.Table.from_pylist(list(kept.values()), schema=schema), scratch)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The measurements of a cell; none where it has not been measured."""
    path = folder / "records.parquet"
    if not path.exists():
        return []
    parquet = require("pyarrow.parquet", extra="study")
    rows: list[dict[str, Any]] = parquet.read_table(path, partitioning=None).to_pylist()
    return rows


def find_cells(*roots: str | Path) -> list[Path]:
    """The cells in some folders, at any depth, in order; a cell's own folder names it."""
    found = {path.parent for root in roots for path in Path(root).rglob("status.json")}
    return sorted(found, key=lambda folder: (folder.parent.as_posix(), _as_number(folder.name)))


def clear(folder: Path) -> None:
    """Forget what a failed cell left, but for its lock."""
    for path in folder.iterdir():
        if path.name == ".lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_held(folder: Path) -> bool:
    """Whether some process works on a cell now."""
    if not (folder / ".lock").exists():
        return False
    with held(folder) as free:
        return not free


def progress(folder: Path) -> float:
    """Epochs done in a cell so far, over its members."""
    return float(sum(line["epoch"] for line in last_lines(folder)))


def last_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The last line of every training log in a cell, members' included; a line half written does not count."""
    for log in folder.rglob("train.jsonl"):
        lines = log.read_bytes().split(b"\n")[:-1]
        if lines:
            yield json.loads(lines[-1])


def _as_number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (-1, text)
