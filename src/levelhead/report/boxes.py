"""How much the kinds of shift differ: at each severity, a box for every recipe."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from levelhead.report.evidence import Evidence
from levelhead.report.figure import Series, Table, figure, svg, views
from levelhead.report.markup import Markup, el, number
from levelhead.report.scale import Scale, around
from levelhead.report.severity import quantities
from levelhead.report.words import Metric, metric, plural, unit
from levelhead.scores import better

ROW = 17.0  # height of one box and the space around it
FEW = 6  # panels that have the room of large ones


class Five(NamedTuple):
    """What a box shows."""

    lowest: float
    lower: float
    median: float
    upper: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Five":
        """Extremes, median and quartiles (linear between the values)."""
        if len(values) == 1:
            return cls(*(values[0],) * 5)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(min(values), lower, median, upper, max(values))


def boxes(evidence: Evidence) -> Markup:
    """A figure a metric, one panel a severity: for each recipe the spread over the kinds of shift; 0 is clean."""
    parts = [(metric(name).name, _figure(evidence, name)) for name in quantities(evidence)]
    return views(f"boxes-{evidence.slug}", parts)


def _figure(evidence: Evidence, name: str) -> Markup:
    what = metric(name)
    found = {level: _at(evidence, name, level) for level in (0, *evidence.severities)}
    limits = around([edge for spreads in found.values() for five in spreads.values() for edge in five])
    panels, rows = [], []
    for level, spreads in found.items():
        slug = f"box-{evidence.slug}-{name}-{level}"
        title = f"{what.name} over shifts at severity {level}" if level else f"{what.name} on clean rows"
        size = (340.0 if len(found) <= FEW else 212.0, ROW * len(spreads) + 42)
        panels.append((f"Severity {level}" if level else "Clean", _panel(slug, size, title, what, spreads, limits)))
        rows += [
            (series.name, str(level), *(what.write(edge / what.factor) for edge in five))
            for series, five in spreads.items()
        ]
    heads = ("Recipe", "Severity", "Lowest", "Lower quartile", "Median", "Upper quartile", "Highest")
    ways = {"higher": " (further right is better)", "lower": " (further left is better)"}
    way = ways.get(better(name) or "", "")
    caption = (
        f"{what.name}{unit(what)}{way}: box from the lower to the upper quartile over "
        f"{plural(len(evidence.shifts), 'kind')} of shift, line at the median, whiskers to the extremes. Clean test "
        "rows are one set, so a line."
    )
    numbers = Table(heads, tuple(rows)).markup(caption)
    series = [contender.series for contender in evidence.done]
    return figure(panels, caption=caption, of=series, numbers=numbers, small=len(panels) > FEW)


def _at(evidence: Evidence, name: str, level: int) -> dict[Series, Five]:
    """The spread of each recipe over the shifts, in the units that are shown; of clean rows at level 0."""
    found = {}
    for contender in evidence.done:
        if level == 0:
            estimates = [contender.estimate(name, "clean")]
        else:
            estimates = [contender.estimate(name, "shift", shift, level) for shift in evidence.shifts]
        values = [estimate.mean * metric(name).factor for estimate in estimates if estimate is not None]
        if values:
            found[contender.series] = Five.of(values)
    return found


def _panel(
    slug: str,
    size: tuple[float, float],
    title: str,
    what: Metric,
    spreads: dict[Series, Five],
    limits: tuple[float, float],
) -> Markup:
    width, height = size
    bottom = height - 36
    x = Scale(*limits, 22, width - 8)
    grid = [el("line", x1=x(tick), x2=x(tick), y1=4, y2=bottom, class_="grid") for tick in x.ticks(4)]
    texts = [el("text", f"{tick:g}", x=x(tick), y=bottom + 14, class_="c") for tick in x.ticks(4)]
    label = el("text", f"{what.name}{unit(what)}", x=(x.start + x.stop) / 2, y=bottom + 29, class_="c")
    marks = [
        _box(series, five, 4 + ROW * (place + 0.5), what, x) for place, (series, five) in enumerate(spreads.items())
    ]
    return svg(slug, size, grid, *marks, *texts, label, title=title, text=_words(spreads, what))


def _box(series: Series, five: Five, y: float, what: Metric, x: Scale) -> Markup:
    low, lower, median, upper, high = (x(edge) for edge in five)
    whiskers = f"M{number(low)} {number(y)}H{number(lower)}M{number(upper)} {number(y)}H{number(high)}"
    return series.group(
        el("title", f"{series.name}: median {what.write(five.median / what.factor)}"),
        el("path", d=whiskers, class_="w"),
        el("rect", x=lower, y=y - 5, width=max(upper - lower, 0.5), height=10, class_="box"),
        el("path", d=f"M{number(median)} {number(y - 5)}V{number(y + 5)}", class_="med"),
        el("text", series.number, x=16, y=y + 3.5, class_="n e"),
    )


def _words(spreads: dict[Series, Five], what: Metric) -> str:
    if not spreads:
        return "Not measured."
    medians = [(five.median, series.name) for series, five in spreads.items()]
    (low, first), (high, last) = min(medians), max(medians)
    return f"Medians from {what.write(low / what.factor)} ({first}) to {what.write(high / what.factor)} ({last})."
