"""One number a thing as bars: what a block is worth, how much a layer aliases, how often moved images agree."""

from collections.abc import Sequence
from typing import NamedTuple

from levelhead.report.depth import by_depth
from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import Series, Table, figure, named, scrolling, svg
from levelhead.report.markup import Markup, el, join, number
from levelhead.report.readings import reading
from levelhead.report.scale import Scale, around, tick_text
from levelhead.report.words import Metric, metric

WIDTH, ROW = 340.0, 18.0
LABELS = 136.0  # room for names, left of the bars
LETTERS = 22  # of a name that fits there
LESION, ALIASING, CONSISTENCY = "lesion_study", "aliasing", "shift_consistency"
CHANGE = Metric("Change of accuracy", "without the block, in points", 1, 100.0, " points")
FOLDED = Metric("Relative aliasing", "aliased part over the low frequencies that should be there", 3)
SAME = Metric("Consistency", "pairs of moved views of one image with the same answer, in percent", 1, 100.0, " %")


class Bar(NamedTuple):
    """One thing and its number."""

    name: str
    kind: str
    estimate: Estimate


def lesions(evidence: Evidence) -> Markup | None:
    """The section about blocks that are taken out; None where nothing was."""
    found = _by_contender(evidence, LESION, "accuracy_change")
    if not found:
        return None
    caption = (
        "Change of accuracy when the branch of one block is taken out of the trained network, the others as they are. "
        "Blocks that change the size of the map have no shortcut past them and are not shown. Faint bars: attention."
    )
    told = []
    for contender, bars in found.items():
        worst = min(bars, key=lambda bar: bar.estimate.mean)
        told.append((contender.series, f"needs {worst.name} most ({CHANGE.write(worst.estimate.mean)})."))
    return join(reading(told), _bars(evidence, "lesion", CHANGE, found, caption))


def aliasing(evidence: Evidence) -> Markup | None:
    """The section about layers that step over pixels; None where none was measured."""
    found = _by_contender(evidence, ALIASING, "relative_aliasing")
    if not found:
        return None
    caption = (
        "What a step over pixels folds onto low frequencies, relative to the low frequencies themselves: 0 is none. "
        "Convolutions are measured behind their kernel, pools and low-pass layers in front."
    )
    told = []
    for contender, bars in found.items():
        worst = max(bars, key=lambda bar: bar.estimate.mean)
        most = FOLDED.write(worst.estimate.mean)
        words = "folds nothing." if most == FOLDED.write(0.0) else f"aliases most at {worst.name} ({most})."
        told.append((contender.series, words))
    return join(reading(told), _bars(evidence, "aliasing", FOLDED, found, caption))


def consistency(evidence: Evidence) -> Markup | None:
    """The section about moved images; None where none were."""
    known = [(c, c.estimate("consistency", CONSISTENCY)) for c in evidence.done]
    found = [(contender, estimate) for contender, estimate in known if estimate is not None]
    if not found:
        return None
    told = [(c.series, f"says the same of {SAME.write(e.mean)} of the pairs of moved views.") for c, e in found]
    rows = []
    for contender, estimate in found:
        moved = contender.estimate("moved_accuracy", CONSISTENCY)
        right = "–" if moved is None else metric("accuracy").write_estimate(moved)
        cells = [el("td", SAME.write_estimate(estimate)), el("td", right)]
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    heads = ("Recipe", "Same answer", "Accuracy of the views")
    head = el("tr", (el("th", text, scope="col") for text in heads))
    caption = el("caption", "Images moved at random by whole pixels, pairs of views compared; ± one standard error.")
    table = el("table", caption, el("thead", head), el("tbody", rows), class_="plain")
    return join(reading(told), scrolling(table, label="Consistency of moved images"))


def _by_contender(evidence: Evidence, evaluation: str, name: str) -> dict[Contender, list[Bar]]:
    found = {}
    for contender in evidence.done:
        bars = [Bar(d.name if evaluation == LESION else _whole(d.kind, d.name), d.kind, d.estimate)
                for d in by_depth(contender, evaluation, name)]  # fmt: skip
        if bars:
            found[contender] = bars
    return found


def _whole(kind: str, name: str) -> str:
    """A name of which the first word is no kind."""
    return kind if kind == name else f"{kind} {name}"


def _bars(
    evidence: Evidence,
    slug: str,
    what: Metric,
    found: dict[Contender, list[Bar]],
    caption: str,
) -> Markup:
    reach = [edge * what.factor for bars in found.values() for bar in bars for edge in bar.estimate.band]
    low, high = around(reach, include=[0.0])
    limits = (low, high) if min(reach) < 0 else (0.0, high)
    panels, rows = [], []
    for contender, bars in found.items():
        series = contender.series
        panels.append((named(series), _panel(f"{slug}-{evidence.slug}-{series.number}", series, what, bars, limits)))
        rows += [(series.name, bar.name, what.write_estimate(bar.estimate)) for bar in bars]
    table = Table(("Recipe", "Where", what.name), tuple(rows)).markup(f"{what.name} ± standard error")
    return figure(panels, caption=caption, numbers=table)


def _panel(slug: str, series: Series, what: Metric, bars: Sequence[Bar], limits: tuple[float, float]) -> Markup:
    size = (WIDTH, ROW * len(bars) + 42)
    bottom = size[1] - 36
    x = Scale(*limits, LABELS, WIDTH - 12)
    ticks = x.ticks(4)
    grid = [el("line", x1=x(tick), x2=x(tick), y1=4, y2=bottom, class_="grid") for tick in ticks]
    texts = [el("text", tick_text(tick), x=x(tick), y=bottom + 14, class_="c") for tick in ticks]
    label = f"{what.name}{', points' if what is CHANGE else ''}"
    texts.append(el("text", label, x=(x.start + x.stop) / 2, y=bottom + 29, class_="c"))
    marks = [_bar(series, bar, 4 + ROW * (place + 0.5), what, x) for place, bar in enumerate(bars)]
    zero = el("line", x1=x(0), x2=x(0), y1=4, y2=bottom, class_="axis")
    text = "; ".join(f"{bar.name} {what.write(bar.estimate.mean)}" for bar in bars)
    return svg(slug, size, el("g", grid, texts, aria_hidden="true"), zero, *marks,
               title=f"{what.name} of {series.name}", text=f"{text}.")  # fmt: skip


def _bar(series: Series, bar: Bar, y: float, what: Metric, x: Scale) -> Markup:
    value = bar.estimate.mean * what.factor
    low, high = (x(edge * what.factor) for edge in bar.estimate.band)
    start, stop = sorted((x(0), x(value)))
    style = None if bar.kind == "attention" else "fill-opacity:.6"
    shown = bar.name if len(bar.name) <= LETTERS else f"…{bar.name[1 - LETTERS :]}"
    return series.group(
        el("title", f"{bar.kind} {bar.name}: {what.write_estimate(bar.estimate)}"),
        el("text", shown, x=LABELS - 6, y=y + 3.5, class_="e"),
        el("rect", x=start, y=y - 5.5, width=max(stop - start, 0.8), height=11, class_="box", style=style),
        el("path", d=f"M{number(low)} {number(y)}H{number(high)}", class_="w") if high - low > 1 else None,
    )
