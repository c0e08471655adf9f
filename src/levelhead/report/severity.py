"""Quality against the severity of a shift: lines with standard errors, boxes over the kinds of shift, and every kind."""

import math
import statistics
from collections.abc import Sequence

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import (
    Series,
    Table,
    end_labels,
    figure,
    frame,
    named,
    polyline,
    scrolling,
    svg,
    views,
    whisker,
)
from levelhead.report.markup import Markup, el, join, number
from levelhead.report.scale import Scale, around
from levelhead.report.words import Metric, metric, plural, spoken, unit
from levelhead.scores import BETTER

LINES = (340.0, 250.0)
ROW = 17.0  # height of one recipe's box


def quantities(evidence: Evidence) -> list[str]:
    """The metrics to follow."""
    wanted = ("rmse", "nll", "coverage95") if evidence.regression else ("accuracy", "nll", "ece")
    return [name for name in wanted if ("shift", name) in {(suite, m) for suite, _, _, m in evidence.names}]


def severity_lines(evidence: Evidence) -> Markup:
    """One panel a metric: its mean over shifts at each severity; 0 is clean."""
    panels = [(f"{metric(name).name}{unit(metric(name))}", _lines(evidence, name)) for name in quantities(evidence)]
    tables = [_line_table(evidence, name) for name in quantities(evidence)]
    caption = (
        f"Mean over {plural(len(evidence.shifts), 'kind')} of shift at each severity; 0 is the clean test set. Bars are one "
        "standard error. Numbers at the right end name the recipes."
    )
    return figure(panels, caption=caption, of=_series(evidence), numbers=join(*tables))


def boxes(evidence: Evidence) -> Markup:
    """One panel a severity: for each recipe the spread over the kinds of shift."""
    parts = [(metric(name).name, _boxes_of(evidence, name)) for name in quantities(evidence)]
    return views(f"boxes-{evidence.slug}", parts)


def heat(evidence: Evidence) -> Markup:
    """Recipes by kinds of shift, averaged over severities."""
    parts = [(metric(name).name, _heat_of(evidence, name)) for name in quantities(evidence)]
    return views(f"heat-{evidence.slug}", parts)


def _series(evidence: Evidence) -> list[Series]:
    return [contender.series for contender in evidence.done]


def at(contender: Contender, name: str, severity: int) -> Estimate | None:
    """A metric at a severity, averaged over the shifts; severity 0 is clean."""
    return contender.estimate(name, "clean") if severity == 0 else contender.estimate(name, "shift", None, severity)


def _lines(evidence: Evidence, name: str) -> Markup:
    width, height = LINES
    what, levels = metric(name), [0, *evidence.severities]
    curves: dict[Contender, list[tuple[int, Estimate]]] = {}
    for contender in evidence.done:
        found = [(level, at(contender, name, level)) for level in levels]
        curves[contender] = [(level, estimate) for level, estimate in found if estimate is not None]
    reach = [
        e.mean + sign * (e.error if math.isfinite(e.error) else 0.0)
        for c in curves.values()
        for _, e in c
        for sign in (-1, 1)
    ]
    low, high = around([value * what.factor for value in reach], include=[0.0] if name == "ece" else [])
    low = max(low, 0.0) if name in ("ece", "rmse", "accuracy") else low
    x, y = Scale(0, levels[-1], 42, width - 30), Scale(low, high, height - 38, 8)
    marks, ends = [], []
    for contender, curve in curves.items():
        if not curve:
            continue
        series = contender.series
        places = [(x(level), y(e.mean * what.factor)) for level, e in curve]
        bars = [_bar(x(level), y, e, what) for level, e in curve]
        dots = [
            series.marker(*p, title=f"{series.name}: {what.write_estimate(e)} at severity {level}")
            for p, (level, e) in zip(places, curve, strict=True)
        ]
        marks.append(series.group(polyline(places), bars, dots))
        ends.append((series, *places[-1]))
    grid = frame(x, y, x_label="Severity of the shift", x_ticks=levels)
    labels = end_labels(ends, x=x.stop + 10, low=8, high=height - 38)
    first, last = _extremes(curves, levels[0]), _extremes(curves, levels[-1])
    text = f"Mean {what.name} over shifts, at severity 0 {_range(first, what)}; at severity {levels[-1]} {_range(last, what)}."
    return svg(
        f"lines-{evidence.slug}-{name}", LINES, grid, *marks, labels, title=f"{what.name} against severity", text=text
    )


def _bar(x: float, y: Scale, estimate: Estimate, what: Metric) -> Markup | None:
    if not math.isfinite(estimate.error) or estimate.error == 0:
        return None
    low, high = (y((estimate.mean + sign * estimate.error) * what.factor) for sign in (-1, 1))
    return whisker(x, low, high)


def _extremes(curves: dict[Contender, list[tuple[int, Estimate]]], level: int) -> list[tuple[float, Series]]:
    found = [(e.mean, c.series) for c, curve in curves.items() for at_level, e in curve if at_level == level]
    return sorted(found, key=lambda entry: entry[0])


def _range(found: list[tuple[float, Series]], what: Metric) -> str:
    if not found:
        return "not measured"
    (low, first), (high, last) = found[0], found[-1]
    return f"from {what.write(low)} ({first.name}) to {what.write(high)} ({last.name})"


def _line_table(evidence: Evidence, name: str) -> Markup:
    levels = [0, *evidence.severities]
    heads = ("Recipe", *(f"severity {level}" for level in levels))
    rows = tuple(
        (c.series.name, *(_written(metric(name), at(c, name, level)) for level in levels)) for c in evidence.done
    )
    return Table(heads, rows).markup(f"{metric(name).name}, mean over shifts ± standard error")


def _written(what: Metric, estimate: Estimate | None) -> str:
    return "–" if estimate is None else what.write_estimate(estimate)


def _boxes_of(evidence: Evidence, name: str) -> Markup:
    what = metric(name)
    values = {
        (contender, level): [
            estimate.mean * what.factor
            for shift in evidence.shifts
            if (estimate := contender.estimate(name, "shift", shift, level)) is not None
        ]
        for contender in evidence.done
        for level in evidence.severities
    }
    limits = around([value for found in values.values() for value in found])
    panels, rows = [], []
    for level in evidence.severities:
        found = [(contender.series, values[contender, level]) for contender in evidence.done]
        found = [(series, sorted(numbers)) for series, numbers in found if numbers]
        panels.append((f"Severity {level}", _box_panel(evidence, what, name, level, found, limits)))
        rows += [(series.name, str(level), *_five(numbers, what)) for series, numbers in found]
    table = Table(
        ("Recipe", "Severity", "Lowest", "Lower quartile", "Median", "Upper quartile", "Highest"), tuple(rows)
    )
    better = {"higher": "further right is better", "lower": "further left is better"}.get(BETTER.get(name, ""), "")
    caption = (
        f"{what.name}{unit(what)}{f' ({better})' if better else ''}: box from the lower to the upper quartile over "
        f"{plural(len(evidence.shifts), 'kind')} of shift, line at the median, whiskers to the extremes."
    )
    return figure(panels, caption=caption, of=_series(evidence), numbers=table.markup(caption))


def _box_panel(
    evidence: Evidence,
    what: Metric,
    name: str,
    level: int,
    found: Sequence[tuple[Series, list[float]]],
    limits: tuple[float, float],
) -> Markup:
    width, height = 210.0, ROW * len(found) + 42
    x, bottom = Scale(*limits, 22, width - 8), height - 36
    rows = Scale(0, len(found), 4, bottom)
    marks = []
    for place, (series, values) in enumerate(found):
        y, (low, q1, median, q3, high) = rows(place + 0.5), (x(value) for value in _quartiles(values))
        tip = f"{series.name}: median {what.write(statistics.median(values) / what.factor)}"
        marks.append(
            series.group(
                el("title", tip),
                el(
                    "path",
                    d=f"M{number(low)} {number(y)}H{number(q1)}M{number(q3)} {number(y)}H{number(high)}",
                    class_="w",
                ),
                el("rect", x=q1, y=y - 5, width=max(q3 - q1, 0.5), height=10, class_="box"),
                el("path", d=f"M{number(median)} {number(y - 5)}V{number(y + 5)}", class_="med"),
                el("text", series.number, x=16, y=y + 3.5, class_="n e"),
            )
        )
    ticks = x.ticks(4)
    grid = [el("line", x1=x(tick), x2=x(tick), y1=4, y2=bottom, class_="grid") for tick in ticks]
    texts = [el("text", f"{tick:g}", x=x(tick), y=bottom + 14, class_="t c") for tick in ticks]
    label = el("text", what.name + unit(what), x=(x.start + x.stop) / 2, y=bottom + 29, class_="l c")
    medians = sorted((statistics.median(values), series.name) for series, values in found)
    text = "Medians " + (
        f"from {medians[0][0]:.3g} ({medians[0][1]}) to {medians[-1][0]:.3g} ({medians[-1][1]})."
        if medians
        else "not measured."
    )
    slug = f"box-{evidence.slug}-{name}-{level}"
    return svg(
        slug,
        (width, height),
        grid,
        *marks,
        *texts,
        label,
        title=f"{what.name} over shifts at severity {level}",
        text=text,
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    if len(values) < 2:
        return (values[0],) * 5  # type: ignore[return-value]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return min(values), q1, median, q3, max(values)


def _five(values: Sequence[float], what: Metric) -> list[str]:
    return [what.write(value / what.factor) for value in _quartiles(values)]


def _heat_of(evidence: Evidence, name: str) -> Markup:
    what, sign = metric(name), 1 if BETTER.get(name) == "higher" else -1
    columns = [(None, "Clean"), *((shift, spoken(shift).capitalize()) for shift in evidence.shifted_sets)]
    found = {
        (c, shift): c.estimate(name, "clean") if shift is None else c.estimate(name, "shift", shift)
        for c in evidence.done
        for shift, _ in columns
    }
    means = [estimate.mean for estimate in found.values() if estimate is not None]
    low, high = (min(means), max(means)) if means else (0.0, 1.0)
    heads = el("tr", el("th", "Recipe", scope="col"), (el("th", label, scope="col") for _, label in columns))
    rows = []
    for contender in evidence.done:
        cells = []
        for shift, _ in columns:
            estimate = found[contender, shift]
            best = max((sign * e.mean for c in evidence.done if (e := found[c, shift]) is not None), default=None)
            cells.append(
                _heat_cell(estimate, what, low, high, best=estimate is not None and sign * estimate.mean == best)
            )
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    darker = "Stronger colour is a higher value"
    caption = f"{what.name}{unit(what)}, mean over severities. {darker}; the best of each column is bold."
    table = el("table", el("caption", caption), el("thead", heads), el("tbody", rows), class_="heat")
    return scrolling(table, label=f"{what.name} by kind of shift")


def _heat_cell(estimate: Estimate | None, what: Metric, low: float, high: float, *, best: bool) -> Markup:
    if estimate is None:
        return el("td", "–")
    share = (estimate.mean - low) / (high - low) if high > low else 0.0
    text = Metric(what.name, what.text, what.digits, what.factor).write(estimate.mean)
    return el(
        "td", el("b", text, el("span", " (best)", class_="sr")) if best else text, style=f"--h:{round(46 * share)}%"
    )
