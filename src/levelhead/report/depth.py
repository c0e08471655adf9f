"""Block by block from the stem to the head: which frequencies the maps hold, and how much they vary."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import Series, Table, end_labels, figure, frame, polyline, svg, whisker
from levelhead.report.markup import Markup, el, join
from levelhead.report.readings import reading
from levelhead.report.scale import Scale, around, around_log
from levelhead.report.words import Metric, listed

SIZE = (340.0, 250.0)
KINDS = ("convolution", "attention", "mlp")
SHARES = (25, 50, 75, 100)
FOURIER, VARIANCE, NETWORK = "fourier_profile", "feature_map_variance", "network"
AMPLITUDE = Metric("Δ log amplitude", "of the highest frequency of the maps, less that of their mean", 2)
WORDS = {"convolution": "convolutions", "attention": "attention", "mlp": "MLPs"}
EXPECTED = {"convolution": 1, "attention": -1}  # the way the profile goes across them, as published
STILL = 0.005  # log amplitude a block, less than which is no change


class Depth(NamedTuple):
    """One block: its place from 0 (the stem) to 1 (the last), its kind and name, and what was measured of it."""

    place: float
    kind: str
    name: str
    estimate: Estimate


def by_depth(contender: Contender, evaluation: str, metric: str) -> list[Depth]:
    """A metric of every block in the order of depth."""
    run = contender.done[0]
    known = sorted(
        (place, data)
        for suite, data, place, name in run.values
        if suite == evaluation and name == metric and place is not None
    )
    found = []
    for place, data in known:
        estimate = contender.estimate(metric, evaluation, data, place)
        if estimate is not None:
            kind, _, name = data.partition(" ")
            found.append(Depth((place - 1) / max(known[-1][0] - 1, 1), kind, name or kind, estimate))
    return found


def fourier(evidence: Evidence) -> Markup | None:
    """The section about frequencies."""
    last = {c.series: by_depth(c, FOURIER, f"log_amplitude_{SHARES[-1]}") for c in evidence.done}
    last = {series: depths for series, depths in last.items() if depths}
    if not last:
        return None
    panels = [("Highest frequency, by depth", _panel(f"fourier-{evidence.slug}", AMPLITUDE, last))]
    for contender in evidence.done:
        if contender.series in last:
            slug = f"profile-{evidence.slug}-{contender.series.number}"
            panels.append((f"Profiles of {contender.series.number}", _profiles(slug, contender)))
    caption = (
        "Log amplitude (natural) along the diagonal of the maps' spectra, less that of the mean: 0 would be as much as "
        "the mean, and white noise has 0.35. Hollow markers are attention. Profiles: one line a block, fainter at the "
        "stem and full at the end. Bars are one standard error over seeds."
    )
    made = figure(panels, caption=caption, of=list(last), numbers=_table("Highest frequency by block", AMPLITUDE, last))
    told = [(c.series, _frequencies(c)) for c in evidence.done if c.series in last]
    return join(reading(told), made)


def _frequencies(contender: Contender) -> str:
    """What the profile does across blocks of each kind, in words."""
    changes = {kind: contender.estimate(f"change_across_{kind}", FOURIER, NETWORK) for kind in KINDS}
    moves = [f"{_way(e.mean)} across {WORDS[kind]}" for kind, e in changes.items() if e is not None]
    if not moves:
        return "no two blocks in a row have maps of one size."
    return f"high frequencies {listed(moves)}{_against(changes)}."


def _way(change: float) -> str:
    size = f"{abs(change):.2f} a block"
    return "stay" if abs(change) < STILL else f"rise (+{size})" if change > 0 else f"fall (\u2212{size})"


def _against(changes: dict[str, Estimate | None]) -> str:
    """Whether that is what was published."""
    signs = {kind: changes[kind] for kind in EXPECTED}
    known = {kind: e.mean for kind, e in signs.items() if e is not None and abs(e.mean) >= STILL}
    if not known:
        return ""
    agree = [math.copysign(1, mean) == EXPECTED[kind] for kind, mean in known.items()]
    return (
        ", as published"
        if all(agree)
        else ", against what was published"
        if not any(agree)
        else ", partly as published"
    )


def variance(evidence: Evidence) -> Markup | None:
    """The section about variances."""
    panels, tables, curves = [], [], {}
    for metric, heading in (("spatial_variance", "Over places"), ("pass_variance", "Over passes that draw")):
        what = Metric(heading, heading, 3)
        found = {c.series: by_depth(c, VARIANCE, metric) for c in evidence.done}
        found = {series: depths for series, depths in found.items() if any(d.estimate.mean > 0 for d in depths)}
        if found:
            curves[metric] = found
            slug = f"{metric.replace('_', '-')}-{evidence.slug}"
            panels.append((f"Variance {heading.lower()}", _panel(slug, what, found, log=True)))
            tables.append(_table(f"Variance {heading.lower()}", what, found))
    if not panels:
        return None
    caption = (
        "Variance of each block's maps, averaged over channels and images; logarithmic. Over passes: of a network that "
        "draws, at every point of a map. Hollow markers are attention. Bars are one standard error over seeds."
    )
    shown = [c.series for c in evidence.done if any(c.series in found for found in curves.values())]
    made = figure(panels, caption=caption, of=shown, numbers=join(tables))
    spatial = curves.get("spatial_variance", {})
    return join(reading([(series, _growth(depths)) for series, depths in spatial.items()]), made)


def _growth(depths: Sequence[Depth]) -> str:
    """How the variance at the end compares with that at the stem, in words."""
    first, last = (depths[place].estimate.mean for place in (0, -1))
    if len(depths) < 2 or first <= 0:
        return "the stem's maps do not vary."
    return f"the last block's maps vary {last / first:.2g} times as much as the stem's."


def _panel(slug: str, what: Metric, curves: dict[Series, list[Depth]], *, log: bool = False) -> Markup:
    width, height = SIZE
    values = [edge for depths in curves.values() for d in depths for edge in (d.estimate.mean, *d.estimate.band)]
    limits = around_log([d.estimate.mean for depths in curves.values() for d in depths]) if log else around(values)
    x, y = Scale(0, 1, 48, width - 30), Scale(*limits, height - 38, 8, log=log)
    marks, ends, told = [], [], []
    for series, depths in curves.items():
        shown = [d for d in depths if not log or d.estimate.mean > 0]
        places = [(x(d.place), y(d.estimate.mean)) for d in shown]
        marks.append(series.group(polyline(places), [_mark(series, d, what, x, y, log) for d in shown]))
        ends.append((series, *places[-1]))
        told.append(f"{series.name}: {what.write(shown[0].estimate.mean)} at {shown[0].name}, "
                    f"{what.write(shown[-1].estimate.mean)} at {shown[-1].name}")  # fmt: skip
    grid = frame(x, y, x_label="Depth: stem 0, last block 1", x_ticks=(0, 0.25, 0.5, 0.75, 1))
    labels = end_labels(ends, x=x.stop + 10, low=8, high=height - 38)
    return svg(slug, SIZE, grid, *marks, labels, title=f"{what.name} by depth", text="; ".join(told) + ".")


def _mark(series: Series, depth: Depth, what: Metric, x: Scale, y: Scale, log: bool) -> Markup:
    """A marker, hollow for attention, with its error bar."""
    estimate = depth.estimate
    low, high = estimate.band
    bar = whisker(x(depth.place), y(low), y(high)) if low < high and (low > 0 or not log) else None
    tip = f"{series.name}, {depth.kind} {depth.name}: {what.write_estimate(estimate)}"
    marker = series.marker(x(depth.place), y(estimate.mean), title=tip)
    return join(bar, Markup(marker.replace('class="m"', 'class="o"')) if depth.kind == "attention" else marker)


def _profiles(slug: str, contender: Contender) -> Markup:
    """A line a block from the mean to the highest frequency."""
    width, height = SIZE
    curves = [by_depth(contender, FOURIER, f"log_amplitude_{share}") for share in SHARES]
    count = len(curves[0])
    lines = [[0.0, *(curve[block].estimate.mean for curve in curves)] for block in range(count)]
    x, y = Scale(0, 1, 42, width - 10), Scale(*around([v for line in lines for v in line]), height - 38, 8)
    marks = [_line(line, block / max(count - 1, 1), x, y) for block, line in enumerate(lines)]
    grid = frame(x, y, x_label="Frequency, in units of π a pixel", x_ticks=(0, 0.25, 0.5, 0.75, 1))
    first, last = AMPLITUDE.write(lines[0][-1]), AMPLITUDE.write(lines[-1][-1])
    text = f"At the highest frequency {first} at the stem and {last} at the last of {count} blocks."
    title = f"Fourier profiles of {contender.series.name}"
    return svg(slug, SIZE, grid, contender.series.group(marks), title=title, text=text)


def _line(values: Sequence[float], depth: float, x: Scale, y: Scale) -> Markup:
    places = [(x(place / (len(values) - 1)), y(value)) for place, value in enumerate(values)]
    return el("g", polyline(places), style=f"opacity:{0.3 + 0.7 * depth:.2f}")


def _table(caption: str, what: Metric, curves: dict[Series, list[Depth]]) -> Markup:
    rows = [
        (series.name, depth.name, depth.kind, what.write_estimate(depth.estimate))
        for series, depths in curves.items()
        for depth in depths
    ]
    return Table(("Recipe", "Block", "Kind", "Value"), tuple(rows)).markup(caption)
