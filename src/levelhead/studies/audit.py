"""Scoring predictions alone: files from anywhere, the same metrics as in a study, and receipts of what was scored.

A file's name says what its rows are, as in a run folder: `test`, `shift-<name>-<severity>`, `ood-<name>`,
`attack-<name>`. A file that stands alone is the test set; beside others, one of any other name is a shift.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from levelhead.all_scores import member_scores, sample_scores
from levelhead.arrays import SUFFIXES
from levelhead.beliefs import Beliefs
from levelhead.evaluation import SCORED
from levelhead.measuring import Record
from levelhead.predictions import Predictions, read_predictions
from levelhead.scores import as_records
from levelhead.studies.environment import software
from levelhead.studies.store import find_cells
from levelhead.studies.suites import suite_of

PREFIXES = ("shift-", "ood-", "attack-")
TEST = "test"
ALIASES = {"clean": TEST}


@dataclass(frozen=True)
class Audit:
    """Measurements of predictions, what they were computed from (one receipt a file), and with which software."""

    records: tuple[Record, ...]
    receipts: tuple[dict[str, Any], ...]
    environment: dict[str, Any]


def audit(
    paths: Sequence[str | Path] | str | Path, *, suites: Sequence[str] | None = None, void: int | None = None
) -> Audit:
    """Score the files, and the files in the folders, that `paths` names.

    suites  texts of evaluations that score stored beliefs; by default clean, shift, ood, and attack where there are
            such files. "clean(metrics='all')" for everything. Files of samples have metrics of their own.
    void    the label of rows and sites that do not count.

    Raises BadPredictions for files that cannot be right, FileNotFoundError for folders without any, ValueError for two
    files of the same name.
    """
    files = _files([paths] if isinstance(paths, str | Path) else paths)
    found: dict[str, Predictions] = {}
    receipts = []
    for path in files:
        key = _key(path, alone=len(files) == 1)
        if key in found:
            raise ValueError(f"{path}: another file is {key!r} too; names must differ in more than the ending")
        found[key] = read_predictions(path, labelled=not key.startswith("ood-"), void=void)
        receipts.append({"scored_as": key, **found[key].receipt})
    stored: dict[str, Beliefs] = {key: p.beliefs for key, p in found.items() if p.beliefs is not None}
    kinds = {receipt["kind"] for receipt in receipts}
    if len(kinds) > 1:
        raise ValueError(f"the files are of different kinds, {sorted(kinds)}; score them apart")
    chosen = SCORED if suites is None else suites
    if suites is None and any(key.startswith("attack-") for key in stored):
        chosen = (*SCORED, "attack")
    records = [record for suite in chosen for record in suite_of(suite).score(stored)]
    records += [record for key, predictions in found.items() for record in _beyond(key, predictions)]
    return Audit(tuple(records), tuple(receipts), software())


def is_predictions(path: Path) -> bool:
    """Whether a path is a file of predictions, or a folder that holds some and neither a predictor nor run folders."""
    if not path.is_dir():
        return path.is_file() and path.suffix in SUFFIXES
    return bool(_inside(path)) and not (path / "predictor.json").exists() and not find_cells(path)


def _files(paths: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        inside = _inside(path) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f"{path} holds no predictions: files that end in {', '.join(SUFFIXES)}")
        files += inside
    return files


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in SUFFIXES)


def _key(path: Path, *, alone: bool) -> str:
    name = unquote(path.stem)
    name = ALIASES.get(name, name)
    if name == TEST or name.startswith(PREFIXES):
        return name
    return TEST if alone else f"shift-{name}"


def _beyond(key: str, predictions: Predictions) -> list[Record]:
    """What only a file has: members of classes, and samples."""
    measured: Mapping[str, float] = {}
    labelled = not key.startswith("ood-")
    if predictions.members is not None and predictions.y is not None and labelled:
        measured = member_scores(predictions.members, predictions.y)
    elif predictions.samples is not None and predictions.y is not None:
        measured = sample_scores(predictions.samples, predictions.y)
    suite, _, rest = key.partition("-")
    data, _, number = rest.rpartition("-")
    severity = int(number) if suite == "shift" and data and number.isdigit() else None
    name = "test" if key == TEST else rest if severity is None else data
    return as_records("clean" if key == TEST else suite, name, severity, measured, predictions.num_rows)
