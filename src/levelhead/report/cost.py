"""Quality against what it costs, with the Pareto front: recipes that nothing beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import LABEL_HEIGHT, Table, figure, frame, polyline, svg, whisker
from levelhead.report.headline import reference
from levelhead.report.markup import Markup, el
from levelhead.report.scale import Scale, around, around_log
from levelhead.report.words import listed, metric

SIZE = (340.0, 250.0)
PLACES = (
    (13.0, 0.0),
    (-13.0, 0.0),
    (0.0, -12.0),
    (0.0, 12.0),
    (12.0, -10.0),
    (12.0, 10.0),
    (-12.0, -10.0),
    (-12.0, 10.0),
)


@dataclass(frozen=True)
class Axis:
    """A cost: what it is called, where it was measured, and whether it is shown relative to the plain recipe."""

    label: str
    metric: str
    data: str
    relative: bool = False


ARITHMETIC = Axis("Multiply-adds of a prediction, relative to {plain}", "multiply_adds", "test", relative=True)
TRAINING = Axis("Seconds to train", "train_seconds", "train")


def pareto(evidence: Evidence) -> Markup | None:
    """Clean and shifted NLL against the arithmetic of a prediction, and clean NLL against training time."""
    wanted = [
        ("Clean NLL and arithmetic", ARITHMETIC, "clean"),
        ("Shifted NLL and arithmetic", ARITHMETIC, "shift"),
        ("Clean NLL and training time", TRAINING, "clean"),
    ]
    plain = "the cheapest" if evidence.plain is None else evidence.plain.series.name
    panels, rows = [], []
    for place, (heading, axis, suite) in enumerate(wanted):
        points = _points(evidence, axis, suite)
        if len(points) > 1:
            panels.append(
                (heading, _panel(f"cost-{evidence.slug}-{place}", heading, axis.label.format(plain=plain), points))
            )
            rows += [
                (
                    heading,
                    p.contender.series.name,
                    f"{p.cost:.3g}",
                    metric("nll").write_estimate(p.quality),
                    "yes" if p in front(points) else "no",
                )
                for p in points
            ]
    if not panels:
        return None
    numbers = Table(("Panel", "Recipe", "Cost", "NLL", "On the front"), tuple(rows)).markup("Cost and quality")
    caption = (
        "Lower left is better. The stepped line is the Pareto front: no other recipe is at once cheaper and better "
        "than the ones on it. Cost axes are logarithmic; bars are one standard error."
    )
    return figure(panels, caption=caption, of=[c.series for c in evidence.done], numbers=numbers)


@dataclass(frozen=True)
class Point:
    """A recipe's cost and quality (lower is better)."""

    contender: Contender
    cost: float
    quality: Estimate


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in cost and quality, cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.quality.mean)):
        if not kept or point.quality.mean < kept[-1].quality.mean:
            kept.append(point)
    return kept


def _points(evidence: Evidence, axis: Axis, suite: str) -> list[Point]:
    found = [(c, c.estimate(axis.metric, "cost", axis.data), c.estimate("nll", suite)) for c in evidence.done]
    known = [(c, cost.mean, nll) for c, cost, nll in found if cost is not None and nll is not None and cost.mean > 0]
    if not known:
        return []
    one = reference(evidence, {c.digest: cost for c, cost, _ in known}) if axis.relative else 1.0
    return [Point(c, cost / one, nll) for c, cost, nll in known]


def _panel(slug: str, heading: str, label: str, points: list[Point]) -> Markup:
    width, height = SIZE
    x = Scale(*around_log([point.cost for point in points], margin=0.1), 42, width - 14, log=True)
    y = Scale(*around([edge for point in points for edge in point.quality.band]), height - 38, 10)
    best = front(points)
    taken = [(x(point.cost), y(point.quality.mean)) for point in points]
    marks = [_mark(point, x, y, taken) for point in sorted(points, key=lambda point: y(point.quality.mean))]
    names = listed([point.contender.series.name for point in best])
    grid = frame(x, y, x_label=label)
    steps = polyline(_steps(best, x, y), "front")
    return svg(slug, SIZE, grid, steps, *marks, title=heading, text=f"On the Pareto front, cheapest first: {names}.")


def _steps(best: list[Point], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """The corners of the front, from above the cheapest point to the right of the best one."""
    corners = [(x(best[0].cost), y.stop)]
    for point in best:
        corners += [(x(point.cost), corners[-1][1]), (x(point.cost), y(point.quality.mean))]
    return [*corners, (x.stop, corners[-1][1])]


def _mark(point: Point, x: Scale, y: Scale, taken: list[tuple[float, float]]) -> Markup:
    series, across, up = point.contender.series, x(point.cost), y(point.quality.mean)
    low, high = point.quality.band
    bar = whisker(across, y(low), y(high)) if low < high else None
    tip = f"{series.name}: NLL {metric('nll').write_estimate(point.quality)}, cost {point.cost:.3g}"
    dx, dy = _free(across, up, taken)
    label = el("text", series.number, x=across + dx, y=up + dy + 3.5, class_="n c")
    return series.group(bar, series.marker(across, up, radius=4.2, title=tip), label)


def _free(x: float, y: float, taken: list[tuple[float, float]]) -> tuple[float, float]:
    """From a marker to a place for its label where no other marker or label is, as far as there is one."""

    def room(place: tuple[float, float]) -> float:
        dx, dy = place
        others = [(abs(x + dx - a) / 14, abs(y + dy - b) / LABEL_HEIGHT) for a, b in taken if (a, b) != (x, y)]
        return min((max(gap) for gap in others), default=1.0)

    best = next((place for place in PLACES if room(place) >= 1), max(PLACES, key=room))
    taken.append((x + best[0], y + best[1]))
    return best
