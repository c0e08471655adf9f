"""Does confidence mean what it says: reliability on clean and strongly shifted rows, and accuracy above a confidence."""

import math
from collections.abc import Iterable

import torch

from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.metrics.calibration import Reliability, reliability
from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import Series, Table, end_labels, figure, frame, named, polyline, svg
from levelhead.report.markup import Markup, el, join
from levelhead.report.scale import Scale
from levelhead.report.words import metric

BINS = 10
SQUARE = (212.0, 232.0)
CURVES = (340.0, 250.0)
THRESHOLDS = tuple(k / 20 for k in range(20))
SEEN = 20  # rows behind a point of a curve, at least


def strongest(evidence: Evidence) -> list[str]:
    """The keys of the stored predictions at the highest severity."""
    return [f"shift-{shift}-{evidence.severities[-1]}" for shift in evidence.shifts] if evidence.severities else []


def reliability_diagrams(evidence: Evidence) -> Markup | None:
    """One panel a recipe: accuracy in each bin of confidence, clean and at the highest severity."""
    shifted = strongest(evidence)
    panels, rows = [], []
    for contender in evidence.done:
        tables = [_pooled(contender, keys) for keys in (["test"], shifted)]
        if tables[0] is None:
            continue
        panels.append((named(contender.series), _diagram(evidence, contender, tables)))
        for where, table in zip(("clean", "strongest shift"), tables, strict=True):
            rows += [(contender.series.name, where, *_bin_row(table, b)) for b in _filled(table)]
    if not panels:
        return None
    heads = ("Recipe", "Rows", "Confidence", "Accuracy", "Share of rows")
    numbers = Table(heads, tuple(rows)).markup(f"Reliability in {BINS} bins of equal width")
    also = f"; open squares are all shifts at severity {evidence.severities[-1]} together" if shifted else ""
    caption = join(
        f"Accuracy among rows of about equal confidence, in {BINS} bins, seeds together. Filled circles are clean test rows{also}. ",
        "A mark's area is its share of the rows. On the diagonal, confidence is right; below it, the recipe is overconfident. "
        f"ECE in each panel is of these {BINS} bins.",
    )
    return figure(panels, caption=caption, numbers=numbers)


def confidence_curves(evidence: Evidence) -> Markup | None:
    """Accuracy of the rows at least as confident as a threshold, clean and at the highest severity."""
    sets = [("Accuracy on clean test rows", ["test"]), (_where(evidence), strongest(evidence))]
    panels, tables = [], []
    for place, (heading, keys) in enumerate(sets):
        curves = {c: curve for c in evidence.done if (curve := _curve(c, keys)) is not None}
        if curves:
            panels.append((f"{heading}, %", _curve_panel(f"above-{evidence.slug}-{place}", heading, curves)))
            tables.append(_curve_table(heading, curves))
    if not panels:
        return None
    caption = (
        "Accuracy of the rows on which a recipe is at least this confident, seeds together: what is left if the doubtful rows "
        f"are handed to somebody else. Points with fewer than {SEEN} rows are left out."
    )
    return figure(panels, caption=caption, of=[c.series for c in evidence.done], numbers=join(*tables))


def _where(evidence: Evidence) -> str:
    return f"Accuracy under all shifts at severity {evidence.severities[-1]}" if evidence.severities else ""


def classes(contender: Contender, keys: Iterable[str]) -> Iterable[ClassBeliefs]:
    """The stored beliefs about labels, over seeds."""
    keys = list(keys)
    for run in contender.done:
        for beliefs in run.beliefs(keys):
            if isinstance(beliefs, ClassBeliefs):
                yield beliefs


def _pooled(contender: Contender, keys: Iterable[str]) -> Reliability | None:
    total: Reliability | None = None
    for beliefs in classes(contender, keys):
        table = reliability(beliefs.log_probs, beliefs.y, bins=BINS)
        total = table if total is None else total + table
    return total


def _filled(table: Reliability | None) -> list[int]:
    return [] if table is None else [b for b in range(len(table.count)) if table.count[b] > 0]


def _bin_row(table: Reliability | None, b: int) -> tuple[str, ...]:
    assert table is not None
    return (
        f"{float(table.confidence[b]):.3f}",
        f"{float(table.accuracy[b]):.3f}",
        f"{100 * float(table.share[b]):.1f} %",
    )


def _diagram(evidence: Evidence, contender: Contender, tables: list[Reliability | None]) -> Markup:
    width, height = SQUARE
    x, y = Scale(0, 1, 30, width - 8), Scale(0, 1, height - 36, 26)
    grid = frame(x, y, x_label="Confidence", x_ticks=[0, 0.5, 1], y_ticks=[0, 0.5, 1])
    diagonal = el("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="ref")
    marks, notes, said = [], [], []
    for where, table in zip(("clean", "shifted"), tables, strict=True):
        if table is None:
            continue
        points = [
            (x(float(table.confidence[b])), y(float(table.accuracy[b])), float(table.share[b])) for b in _filled(table)
        ]
        dots = [_dot(px, py, share, square=where == "shifted") for px, py, share in points]
        line = polyline([(px, py) for px, py, _ in points], "ln" if where == "clean" else "ln dash")
        marks.append(contender.series.group(line, dots))
        error = metric("ece").write(float(table.expected_error()))
        notes.append(f"{where} {error}")
        gap = float((table.share * table.gap).sum())
        said.append(
            f"{where}: ECE {error} percent, {'over' if gap < 0 else 'under'}confident by {abs(gap) * 100:.1f} points on average"
        )
    note = el("text", f"ECE, %: {', '.join(notes)}", x=x(0), y=11, class_="t")
    title = f"Reliability of {contender.series.name}"
    slug = f"reliability-{evidence.slug}-{contender.series.number}"
    return svg(slug, SQUARE, grid, diagonal, *marks, note, title=title, text="; ".join(said).capitalize() + ".")


def _dot(x: float, y: float, share: float, *, square: bool) -> Markup:
    """A mark whose area grows with the share of rows."""
    r = 1.6 + 7.0 * math.sqrt(share)
    if square:
        return el("rect", x=x - 0.9 * r, y=y - 0.9 * r, width=1.8 * r, height=1.8 * r, class_="o")
    return el("circle", cx=x, cy=y, r=r, class_="m")


Curve = list[tuple[float, float, float]]  # threshold, accuracy, share of rows


def _curve(contender: Contender, keys: Iterable[str]) -> Curve | None:
    confidence, correct = [], []
    for beliefs in classes(contender, keys):
        best, label = beliefs.log_probs.max(-1)
        confidence.append(best.exp())
        correct.append(label == beliefs.y)
    if not confidence:
        return None
    sure, right = torch.cat(confidence), torch.cat(correct).double()
    curve = []
    for threshold in THRESHOLDS:
        kept = sure >= threshold
        if int(kept.sum()) >= SEEN:
            curve.append((threshold, float(right[kept].mean()), float(kept.double().mean())))
    return curve


def _curve_panel(slug: str, heading: str, curves: dict[Contender, Curve]) -> Markup:
    width, height = CURVES
    lowest = min(accuracy for curve in curves.values() for _, accuracy, _ in curve) * 100
    x, y = Scale(0, 1, 64, width - 8), Scale(max(0.0, lowest - 4), 101, height - 38, 8)
    marks, ends = [], []
    for contender, curve in curves.items():
        series: Series = contender.series
        places = [(x(threshold), y(100 * accuracy)) for threshold, accuracy, _ in curve]
        dots = [series.marker(*place, radius=2.6) for place in places[::4]]
        marks.append(series.group(polyline(places), dots))
        ends.append((series, *places[0]))
    labels = end_labels(ends, x=x.start - 10, low=8, high=height - 38)
    best = max(curves.items(), key=lambda entry: entry[1][-1][1])
    last = best[1][-1]
    text = f"Above a confidence of {last[0]:g}, {best[0].series.name} is right most often: {100 * last[1]:.1f} percent of {100 * last[2]:.0f} percent of the rows."
    grid = frame(x, y, x_label="Confidence at least", x_ticks=[0, 0.25, 0.5, 0.75, 1], room=24)
    return svg(slug, CURVES, grid, *marks, labels, title=f"{heading}, above a confidence", text=text)


def _curve_table(heading: str, curves: dict[Contender, Curve]) -> Markup:
    shown = [threshold for threshold in THRESHOLDS if threshold in (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)]
    rows = []
    for contender, curve in curves.items():
        known = {threshold: f"{100 * accuracy:.1f} % of {100 * share:.0f} %" for threshold, accuracy, share in curve}
        rows.append((contender.series.name, *(known.get(threshold, "–") for threshold in shown)))
    heads = ("Recipe", *(f"at least {threshold:g}" for threshold in shown))
    return Table(heads, tuple(rows)).markup(f"{heading}: accuracy, of what share of the rows")
