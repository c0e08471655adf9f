"""Accuracy of the rows of which a recipe is sure: what is left when the doubtful ones are handed to somebody else."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from levelhead.beliefs import ClassBeliefs
from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import Table, end_labels, figure, frame, polyline, svg
from levelhead.report.markup import Markup, join
from levelhead.report.scale import Scale

SIZE = (340.0, 250.0)
THRESHOLDS = tuple(k / 20 for k in range(20))
IN_TABLE = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
SEEN = 20  # rows behind a point, at least: fewer show chance


class Point(NamedTuple):
    """Of the rows with at least this confidence: the accuracy, and their share of all rows."""

    threshold: float
    accuracy: float
    share: float


Curves = Mapping[Contender, Sequence[Point]]


def confidence_curves(evidence: Evidence) -> Markup | None:
    """Accuracy and number of the rows at least as confident as a threshold, clean and under the strongest shift."""
    sets = [("clean test rows", ["test"])]
    if evidence.strongest:
        sets.append((f"rows under all shifts at severity {evidence.strongest_severity}", evidence.strongest))
    panels, tables = [], []
    for place, (heading, keys) in enumerate(sets):
        curves = {c: points for c in evidence.done if (points := curve(c, keys))}
        if curves:
            slug = f"above-{evidence.slug}-{place}"
            panels.append((f"Accuracy on {heading}, %", _panel(slug, f"Accuracy on {heading}", curves)))
            panels.append((f"Share of the {heading}, %", _counts(f"{slug}-count", f"Share of the {heading}", curves)))
            tables.append(_table(f"Accuracy on {heading}", curves))
    if not panels:
        return None
    caption = (
        "Accuracy of the rows on which a recipe is at least this confident, seeds together: what is left if the "
        f"doubtful rows are handed to somebody else; and how many rows these are. Points with fewer than {SEEN} rows "
        "are left out. Numbers at the ends name the recipes."
    )
    return figure(panels, caption=caption, of=[c.series for c in evidence.done], numbers=join(tables))


def curve(contender: Contender, keys: Sequence[str]) -> list[Point]:
    """The points with enough rows behind them; none where no predictions are stored."""
    sure, right = [], []
    for beliefs in contender.beliefs(ClassBeliefs, keys):
        best, label = beliefs.log_probs.max(-1)
        sure.append(best.exp())
        right.append((label == beliefs.y).double())
    if not sure:
        return []
    confidence, correct = torch.cat(sure), torch.cat(right)
    kept = [(threshold, confidence >= threshold) for threshold in THRESHOLDS]
    enough = [(threshold, rows) for threshold, rows in kept if int(rows.sum()) >= SEEN]
    return [Point(t, float(correct[rows].mean()), float(rows.double().mean())) for t, rows in enough]


def _panel(slug: str, heading: str, curves: Curves) -> Markup:
    width, height = SIZE
    lowest = 100 * min(point.accuracy for points in curves.values() for point in points)
    x, y = Scale(0, 1, 64, width - 8), Scale(max(0.0, lowest - 4), 101, height - 38, 8)
    marks, ends = [], []
    for contender, points in curves.items():
        places = [(x(point.threshold), y(100 * point.accuracy)) for point in points]
        dots = [contender.series.marker(*place, radius=2.6) for place in places[::4]]
        marks.append(contender.series.group(polyline(places), dots))
        ends.append((contender.series, *places[0]))
    grid = frame(x, y, x_label="Confidence at least", x_ticks=[0, 0.25, 0.5, 0.75, 1], room=24)
    labels = end_labels(ends, x=x.start - 10, low=8, high=height - 38)
    title = f"{heading}, above a confidence"
    return svg(slug, SIZE, grid, *marks, labels, title=title, text=_words(curves))


def _counts(slug: str, heading: str, curves: Curves) -> Markup:
    """How many rows are left above each confidence."""
    width, height = SIZE
    x, y = Scale(0, 1, 64, width - 8), Scale(0, 101, height - 38, 8)
    marks, ends = [], []
    for contender, points in curves.items():
        places = [(x(point.threshold), y(100 * point.share)) for point in points]
        dots = [contender.series.marker(*place, radius=2.6) for place in places[::4]]
        marks.append(contender.series.group(polyline(places), dots))
        ends.append((contender.series, *places[-1]))
    grid = frame(x, y, x_label="Confidence at least", x_ticks=[0, 0.25, 0.5, 0.75, 1], room=24)
    contender, points = max(curves.items(), key=lambda entry: entry[1][-1].share)
    text = (
        f"{contender.series.name} has the most rows at its highest confidence: {100 * points[-1].share:.0f} percent "
        f"at {points[-1].threshold:g} or more."
    )
    labels = end_labels(ends, x=x.stop - 4, low=8, high=height - 38)
    return svg(slug, SIZE, grid, *marks, labels, title=f"{heading} above a confidence", text=text)


def _words(curves: Curves) -> str:
    contender, points = max(curves.items(), key=lambda entry: (entry[1][-1].threshold, entry[1][-1].accuracy))
    last = points[-1]
    return (
        f"Above a confidence of {last.threshold:g}, {contender.series.name} is right most often: on "
        f"{100 * last.accuracy:.1f} percent of {100 * last.share:.0f} percent of the rows."
    )


def _table(heading: str, curves: Curves) -> Markup:
    rows = []
    for contender, points in curves.items():
        known = {point.threshold: f"{100 * point.accuracy:.1f} % of {100 * point.share:.0f} %" for point in points}
        rows.append((contender.series.name, *(known.get(threshold, "–") for threshold in IN_TABLE)))
    heads = ("Recipe", *(f"at least {threshold:g}" for threshold in IN_TABLE))
    return Table(heads, tuple(rows)).markup(f"{heading}: accuracy, of what share of the rows")
