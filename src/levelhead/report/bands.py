"""Noise in one band of spatial frequencies at a time: where a network's accuracy lives."""

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import Series, Table, end_labels, figure, frame, polyline, svg, whisker
from levelhead.report.markup import Markup, join
from levelhead.report.readings import reading
from levelhead.report.scale import Scale, around
from levelhead.report.words import Metric, metric, unit

SIZE = (340.0, 250.0)
SUITE, CLEAN = "band_noise", "clean"
CHANGE = Metric("Change of accuracy", "from the clean images, in points", 1, 100.0, " points")

KNOWN = "Networks of convolutions are known to lose most at high frequencies, transformers at low ones."

Curve = list[tuple[float, Estimate]]  # frequency and value


def bands(evidence: Evidence) -> Markup | None:
    """The section; None where no noise was measured."""
    panels, tables = [], []
    for name, what in (("accuracy", metric("accuracy")), ("accuracy_change", CHANGE)):
        curves = {c.series: curve(c, name) for c in evidence.done}
        curves = {series: points for series, points in curves.items() if points}
        if not curves:
            return None
        slug = f"bands-{evidence.slug}-{name.replace('_', '-')}"
        panels.append((f"{what.name}{unit(what) if what.unit == ' %' else ', points'}", _panel(slug, what, curves)))
        tables.append(_table(what, curves))
    caption = (
        "The same images under noise whose frequencies lie in one band; every band has noise of one strength. "
        "Bars are one standard error."
    )
    shown = [c.series for c in evidence.done if curve(c, "accuracy_change")]
    made = figure(panels, caption=caption, of=shown, numbers=join(tables))
    told = [(c.series, worst(points)) for c in evidence.done if (points := curve(c, "accuracy_change"))]
    return join(reading(told, known=KNOWN), made)


def curve(contender: Contender, name: str) -> Curve:
    """A metric by the frequency of the noise."""
    found = []
    for place in range(1, 1000):
        frequency = contender.estimate("frequency", SUITE, None, place)
        estimate = contender.estimate(name, SUITE, None, place)
        if frequency is None or estimate is None:
            break
        found.append((frequency.mean, estimate))
    return found


def worst(points: Curve) -> str:
    """Where most accuracy is lost, in words; a loss within two standard errors is none."""
    frequency, change = min(points, key=lambda point: point[1].mean)
    if change.mean + 2 * (change.mean - change.band[0]) >= 0:
        return "loses no accuracy beyond chance in any band."
    return f"loses most at {frequency:g} π ({CHANGE.write(change.mean)})."


def _panel(slug: str, what: Metric, curves: dict[Series, Curve]) -> Markup:
    width, height = SIZE
    every = [point for points in curves.values() for point in points]
    reach = [edge * what.factor for _, estimate in every for edge in estimate.band]
    low, high = around(reach, include=[0.0] if what is CHANGE else [])
    x = Scale(0, max(frequency for frequency, _ in every) * 1.04, 48, width - 30)
    y = Scale(low, high, height - 38, 8)
    marks, ends = [], []
    for series, points in curves.items():
        places = [(x(frequency), y(e.mean * what.factor)) for frequency, e in points]
        drawn = []
        for place, (frequency, e) in zip(places, points, strict=True):
            down, up = (y(edge * what.factor) for edge in e.band)
            tip = f"{series.name}: {what.write_estimate(e)} at {frequency:g} π"
            drawn += [whisker(place[0], down, up) if down != up else None, series.marker(*place, title=tip)]
        marks.append(series.group(polyline(places), drawn))
        ends.append((series, *places[-1]))
    text = "; ".join(
        f"{series.name}: {what.write(points[0][1].mean)} at {points[0][0]:g} π, "
        f"{what.write(points[-1][1].mean)} at {points[-1][0]:g} π"
        for series, points in curves.items()
    )
    grid = frame(x, y, x_label="Frequency of the noise, in units of π a pixel")
    labels = end_labels(ends, x=x.stop + 10, low=8, high=height - 38)
    return svg(slug, SIZE, grid, *marks, labels, title=f"{what.name} against noise frequency", text=f"{text}.")


def _table(what: Metric, curves: dict[Series, Curve]) -> Markup:
    frequencies = sorted({frequency for points in curves.values() for frequency, _ in points})
    rows = []
    for series, points in curves.items():
        known = {frequency: what.write_estimate(estimate) for frequency, estimate in points}
        rows.append((series.name, *(known.get(frequency, "–") for frequency in frequencies)))
    heads = ("Recipe", *(f"{frequency:g} π" for frequency in frequencies))
    return Table(heads, tuple(rows)).markup(f"{what.name} ± standard error")
