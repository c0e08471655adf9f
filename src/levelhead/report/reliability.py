"""Does a confidence of 0.8 mean right four times in five: reliability diagrams, clean and under the strongest shift."""

import math
from collections.abc import Sequence

from levelhead.beliefs import ClassBeliefs
from levelhead.metrics.calibration import NUM_BINS, Reliability, reliability
from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import Table, figure, frame, named, polyline, svg
from levelhead.report.markup import Markup, el
from levelhead.report.scale import Scale
from levelhead.report.words import metric

SEEN = 10  # rows in a bin that is drawn, at least: fewer show chance
SQUARE = (212.0, 232.0)


def reliability_diagrams(evidence: Evidence) -> Markup | None:
    """One panel a recipe: accuracy in each bin of confidence, clean and at the strongest severity."""
    panels, rows = [], []
    for contender in evidence.done:
        clean, shifted = _pooled(contender, ["test"]), _pooled(contender, evidence.strongest)
        if clean is None:
            continue
        panels.append((named(contender.series), _diagram(evidence, contender, clean, shifted)))
        for where, table in (("clean", clean), ("strongest shift", shifted)):
            if table is not None:
                rows += [(contender.series.name, where, *_numbers(table, b)) for b in _drawn(table)]
    if not panels:
        return None
    heads = ("Recipe", "Rows", "Confidence", "Accuracy", "Share of rows")
    numbers = Table(heads, tuple(rows)).markup(f"Reliability in {NUM_BINS} bins of equal width")
    also = f"; open squares are all shifts at severity {evidence.strongest_severity}" if evidence.strongest else ""
    caption = (
        f"Accuracy among rows of about equal confidence, in {NUM_BINS} bins, seeds together. Filled circles are clean "
        f"test rows{also}. A mark's area is its share of the rows; bins with fewer than {SEEN} are left out. On the "
        "diagonal, confidence is right; below it, the recipe is overconfident."
    )
    return figure(panels, caption=caption, numbers=numbers, small=True)


def _pooled(contender: Contender, keys: Sequence[str]) -> Reliability | None:
    """One table over all those rows."""
    total: Reliability | None = None
    for beliefs in contender.beliefs(ClassBeliefs, keys):
        table = reliability(beliefs.log_probs, beliefs.y)
        total = table if total is None else total + table
    return total


def _drawn(table: Reliability) -> list[int]:
    return [b for b in range(len(table.count)) if table.count[b] >= SEEN]


def _numbers(table: Reliability, b: int) -> tuple[str, str, str]:
    confidence, accuracy, share = (float(values[b]) for values in (table.confidence, table.accuracy, table.share))
    return f"{confidence:.3f}", f"{accuracy:.3f}", f"{100 * share:.1f} %"


def _diagram(evidence: Evidence, contender: Contender, clean: Reliability, shifted: Reliability | None) -> Markup:
    width, height = SQUARE
    x, y = Scale(0, 1, 30, width - 8), Scale(0, 1, height - 36, 26)
    grid = frame(x, y, x_label="Confidence", x_ticks=[0, 0.5, 1], y_ticks=[0, 0.5, 1])
    diagonal = el("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="ref")
    marks = [contender.series.group(_line(clean, x, y, square=False))]
    words = [_words("clean", clean, contender.estimate("ece", "clean"))]
    if shifted is not None:
        marks.append(contender.series.group(_line(shifted, x, y, square=True)))
        words.append(_words("shifted", shifted, contender.estimate("ece", "shift", None, evidence.strongest_severity)))
    note = el("text", f"ECE, %: {', '.join(short for short, _ in words)}", x=2, y=11)
    text = " ".join(long for _, long in words)
    title = f"Reliability of {contender.series.name}"
    slug = f"reliability-{evidence.slug}-{contender.series.number}"
    return svg(slug, SQUARE, grid, diagonal, *marks, note, title=title, text=text)


def _line(table: Reliability, x: Scale, y: Scale, *, square: bool) -> list[Markup]:
    """The bins as marks whose area grows with their share of the rows, joined by a line."""
    points = [(x(float(table.confidence[b])), y(float(table.accuracy[b]))) for b in _drawn(table)]
    sizes = [1.6 + 7.0 * math.sqrt(float(table.share[b])) for b in _drawn(table)]
    marks = [_mark(*point, size, square=square) for point, size in zip(points, sizes, strict=True)]
    return [polyline(points, "ln dash" if square else "ln"), *marks]


def _mark(x: float, y: float, radius: float, *, square: bool) -> Markup:
    if not square:
        return el("circle", cx=x, cy=y, r=radius, class_="m")
    half = 0.9 * radius
    return el("rect", x=x - half, y=y - half, width=2 * half, height=2 * half, class_="o")


def _words(where: str, table: Reliability, ece: Estimate | None) -> tuple[str, str]:
    """What a curve says, short and long; the ECE is the mean over seeds that the tables have."""
    error = metric("ece").bare(float(table.expected_error()) if ece is None else ece.mean)
    gap = 100 * float((table.share * table.gap).sum())
    leaning = f"{'over' if gap < 0 else 'under'}confident by {abs(gap):.1f} points on average"
    return f"{where} {error}", f"{where.capitalize()}: ECE {error} percent, {leaning}."
