"""Mean corruption error of the recipes of a study, and of its NLL and ECE: what shift costs, in one number each."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from levelhead.metrics.mean_corruption_error import (
    ALEXNET,
    ALEXNET_CLEAN,
    CORRUPTIONS,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from levelhead.studies.table import ROW, records
from levelhead.types import require

METRICS = ("error", "nll", "ece")
PUBLISHED = "alexnet"
COLUMNS = (*ROW, "metric", "mce", "mce_se", "relative", "relative_se", "seeds", "corruptions", "baseline")
Measured = Mapping[tuple[str, int], float]  # by data and severity; ("test", 0) is clean


def corruption_error(
    *roots: str | Path,
    baseline: str | None = None,
    names: Mapping[Path, str] | None = None,
    metrics: Sequence[str] = METRICS,
) -> Any:
    """A row for each recipe and metric, over the runs in some folders, in their order.

    baseline  a recipe of the same study, met on the same task, backbone, seed, corruptions and severities; "alexnet",
              whose error rates are published for ImageNet-C; None: plain means.
    mce       mean over the corruptions of E_c / B_c, E_c the metric's mean over severities; `error` is 1 - accuracy.
    relative  the same of E_c - E_clean; NaN where clean rows were not measured, or cost the baseline nothing more.
    corruptions  how many of the fifteen of the test set were measured: numbers compare only where all were.

    Errors are standard errors over seeds, NaN for one seed. Recipes under none of the fifteen have no row. Raises
    ValueError for a baseline that is no recipe, or that lacks a set that a recipe was measured on.
    """
    pandas = require("pandas", extra="study")
    found = _measured(records(*roots, names=names))
    known = {row[2] for row, _, _ in found}
    if baseline not in (None, PUBLISHED, *known):
        raise ValueError(
            f"corruption_error: baseline {baseline!r} is no recipe here; there are {', '.join(sorted(known))}"
        )
    cells: dict[tuple[tuple[str, ...], str], list[tuple[float, float, int]]] = {}
    for (row, seed, metric), values in found.items():
        if metric in metrics:
            unit = _baseline(found, baseline, row, seed, metric)
            scored = _scored(values, unit)
            if scored is not None:
                cells.setdefault((row, metric), []).append(scored)
    lines = []
    for (row, metric), seeds in cells.items():
        plain, relative = [mce for mce, _, _ in seeds], [gap for _, gap, _ in seeds]
        size = min(count for _, _, count in seeds)
        spread = (fmean(plain), _se(plain), fmean(relative), _se(relative))
        lines.append((*row, metric, *spread, len(seeds), size, baseline or ""))
    return pandas.DataFrame(lines, columns=list(COLUMNS))


def by_severity(*roots: str | Path, names: Mapping[Path, str] | None = None, metrics: Sequence[str] = METRICS) -> Any:
    """A row for each recipe, metric and severity, 0 for clean rows: mean over the corruptions, and over seeds.

    `mean_se` is the standard error over seeds, NaN for one; `lowest` and `highest` are the extremes of the corruptions'
    own means over seeds. Of the shifts, the fifteen corruptions count.
    """
    pandas = require("pandas", extra="study")
    cells: dict[tuple[tuple[str, ...], str, int], dict[int, dict[str, float]]] = {}
    for (row, seed, metric), values in _measured(records(*roots, names=names)).items():
        for (data, severity), value in values.items():
            if metric in metrics:
                cells.setdefault((row, metric, severity), {}).setdefault(seed, {})[data] = value
    lines = []
    for (row, metric, severity), seeds in sorted(cells.items(), key=lambda cell: cell[0][2]):
        each = [fmean(values.values()) for values in seeds.values()]
        kinds = [fmean(s[data] for s in seeds.values() if data in s) for data in {d for s in seeds.values() for d in s}]
        lines.append((*row, metric, severity, fmean(each), _se(each), min(kinds), max(kinds), len(each), len(kinds)))
    columns = [*ROW, "metric", "severity", "mean", "mean_se", "lowest", "highest", "seeds", "corruptions"]
    return pandas.DataFrame(lines, columns=columns)


def _measured(table: Any) -> dict[tuple[tuple[str, ...], int, str], dict[tuple[str, int], float]]:
    """By recipe, seed and metric: what was measured on clean rows and under the fifteen corruptions."""
    found: dict[tuple[tuple[str, ...], int, str], dict[tuple[str, int], float]] = {}
    kept = table[table["evaluation"].isin(("clean", "shift"))]
    for line in kept.itertuples(index=False):
        clean = line.evaluation == "clean"
        if clean or (line.data in CORRUPTIONS and line.severity == line.severity):
            row = tuple(str(getattr(line, name)) for name in ROW)
            metric, value = ("error", 1 - line.value) if line.metric == "accuracy" else (line.metric, line.value)
            place = (line.data, 0 if clean else int(line.severity))
            found.setdefault((row, int(line.seed), metric), {})[place] = float(value)
    return found


def _baseline(found: Any, baseline: str | None, row: tuple[str, ...], seed: int, metric: str) -> Measured | None:
    """What the baseline measured where a recipe did; {} where it did not."""
    if baseline is None:
        return None
    if baseline == PUBLISHED:
        own = {(name, severity): error for name, error in ALEXNET.items() for severity in range(1, 6)}
        return {**own, ("test", 0): ALEXNET_CLEAN} if metric == "error" else {}
    task, backbone, _, _ = row
    for (other, other_seed, other_metric), values in found.items():
        if (*other[:3], other_seed, other_metric) == (task, backbone, baseline, seed, metric):
            return dict(values)
    return {}


def _scored(values: Measured, unit: Measured | None) -> tuple[float, float, int] | None:
    """mCE, relative mCE and the number of corruptions of one seed; None where there is nothing to score."""
    shifted = {place for place in values if place[1]}
    if not shifted or unit == {}:
        return None
    if unit is not None and not shifted <= unit.keys():
        data, severity = min(shifted - unit.keys())
        raise ValueError(f"corruption_error: the baseline was not measured on {data} at severity {severity}")
    errors = _means(values, shifted)
    baseline = None if unit is None else _means(unit, shifted)
    plain = mean_corruption_error(errors, baseline)
    try:
        clean = values["test", 0]
        relative = relative_mean_corruption_error(errors, clean, baseline, None if unit is None else unit["test", 0])
    except (KeyError, ValueError):
        relative = float("nan")
    return plain, relative, len(errors)


def _means(values: Measured, places: set[tuple[str, int]]) -> dict[str, float]:
    """Mean over the severities of each corruption."""
    return {name: fmean(values[place] for place in places if place[0] == name) for name, _ in sorted(places)}


def _se(values: list[float]) -> float:
    if len(values) < 2 or not all(map(isfinite, values)):  # stdev raises on NaN
        return float("nan")
    return stdev(values) / len(values) ** 0.5
