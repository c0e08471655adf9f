"""Quality against the severity of a shift, averaged over the kinds: what falls how fast."""

from typing import Any

from levelhead.catalogue import find, names
from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import Series, Table, end_labels, figure, frame, polyline, svg, views, whisker
from levelhead.report.markup import Markup, join
from levelhead.report.scale import Scale, around
from levelhead.report.words import Metric, metric, spoken, unit

SIZE = (340.0, 250.0)
NOT_NEGATIVE = ("accuracy", "brier", "ece", "rmse", "coverage95")
FEW_KINDS = 2  # of shift, which are shown one by one: their severities mean different things

Curve = list[tuple[int, Estimate]]  # severity and value


def quantities(evidence: Evidence) -> list[str]:
    """The metrics that are followed under shift."""
    wanted = ("rmse", "nll", "coverage95") if evidence.regression else ("accuracy", "nll", "brier", "ece")
    known = {name for evaluation, _, _, name in evidence.names if evaluation == "shift"}
    return [name for name in wanted if name in known]


def severity_lines(evidence: Evidence) -> Markup:
    """One panel a metric: its mean over shifts at each severity; 0 is clean. Each of two shifts has its own view."""
    if len(evidence.shifts) != FEW_KINDS:
        return _figure(evidence, None)
    return views(f"lines-{evidence.slug}", [(spoken(s).capitalize(), _figure(evidence, s)) for s in evidence.shifts])


def _figure(evidence: Evidence, shift: str | None) -> Markup:
    """Of one shift, or of the mean over all."""
    panels, tables = [], []
    for name in quantities(evidence):
        what = metric(name)
        curves = {contender: curve(evidence, contender, name, shift) for contender in evidence.done}
        panels.append((f"{what.name}{unit(what)}", _panel(evidence, name, curves, shift)))
        tables.append(_table(what, curves))
    kinds = len(evidence.shifts)
    one = shift or (evidence.shifts[0] if kinds == 1 else None)
    over = f"Mean over {kinds} kinds of shift" if one is None else f"Under {spoken(one)},"
    caption = (
        f"{over} at each severity; 0 is the clean test set.{_amounts(one)} Bars are "
        "one standard error. Numbers at the right end name the recipes."
    )
    return figure(panels, caption=caption, of=[c.series for c in evidence.done], numbers=join(tables))


def _amounts(shift: str | None) -> str:
    """What the severities of one shift stand for, where they are amounts of something."""
    if shift is None or shift not in names("shifts"):
        return ""
    spec: Any = find(shift, ("shifts",))
    amounts = spec.severities
    if tuple(amounts) == tuple(range(1, len(amounts) + 1)):
        return ""
    return f" Severities 1 to {len(amounts)} are the amounts {amounts[0]}, {amounts[1]} … {amounts[-1]}."


def curve(evidence: Evidence, contender: Contender, name: str, shift: str | None = None) -> Curve:
    """A metric at each severity that was measured, of one shift or averaged over all; severity 0 is clean."""
    found = [(0, contender.estimate(name, "clean"))]
    found += [(level, contender.estimate(name, "shift", shift, level)) for level in evidence.severities]
    return [(level, estimate) for level, estimate in found if estimate is not None]


def _panel(evidence: Evidence, name: str, curves: dict[Contender, Curve], shift: str | None) -> Markup:
    width, height = SIZE
    what, levels = metric(name), _levels(curves)
    reach = [edge * what.factor for points in curves.values() for _, estimate in points for edge in estimate.band]
    low, high = around(reach, include=[0.0] if name == "ece" else [])
    low = max(low, 0.0) if name in NOT_NEGATIVE else low
    x, y = Scale(0, levels[-1], 42, width - 30), Scale(low, high, height - 38, 8)
    drawn = {contender.series: points for contender, points in curves.items() if points}
    marks = [_line(series, points, what, x, y) for series, points in drawn.items()]
    ends = [(series, x(points[-1][0]), y(points[-1][1].mean * what.factor)) for series, points in drawn.items()]
    grid = frame(x, y, x_label="Severity of the shift", x_ticks=levels)
    labels = end_labels(ends, x=x.stop + 10, low=8, high=height - 38)
    text = f"At severity 0 {_range(drawn, 0, what)}; at severity {levels[-1]} {_range(drawn, levels[-1], what)}."
    title = f"{what.name} against severity" if shift is None else f"{what.name} under {spoken(shift)}"
    return svg(f"lines-{evidence.slug}-{name}-{shift or 'all'}", SIZE, grid, *marks, labels, title=title, text=text)


def _line(series: Series, points: Curve, what: Metric, x: Scale, y: Scale) -> Markup:
    places = [(x(level), y(estimate.mean * what.factor)) for level, estimate in points]
    bars, markers = [], []
    for place, (level, estimate) in zip(places, points, strict=True):
        low, high = (y(edge * what.factor) for edge in estimate.band)
        bars.append(whisker(place[0], low, high) if low != high else None)
        tip = f"{series.name}: {what.write_estimate(estimate)} at severity {level}"
        markers.append(series.marker(*place, title=tip))
    return series.group(polyline(places), bars, markers)


def _range(drawn: dict[Series, Curve], level: int, what: Metric) -> str:
    """From the lowest to the highest at one severity, in words."""
    found = [(e.mean, series.name) for series, points in drawn.items() for at, e in points if at == level]
    if not found:
        return "nothing was measured"
    (low, first), (high, last) = min(found), max(found)
    return f"from {what.write(low)} ({first}) to {what.write(high)} ({last})"


def _levels(curves: dict[Contender, Curve]) -> list[int]:
    """Clean, and the severities that were measured."""
    return sorted({0, *(level for points in curves.values() for level, _ in points)})


def _table(what: Metric, curves: dict[Contender, Curve]) -> Markup:
    levels = _levels(curves)
    rows = []
    for contender, points in curves.items():
        known = {level: what.write_estimate(estimate) for level, estimate in points}
        rows.append((contender.series.name, *(known.get(level, "–") for level in levels)))
    heads = ("Recipe", *(f"severity {level}" for level in levels))
    return Table(heads, tuple(rows)).markup(f"{what.name} ± standard error")
