"""Does the uncertainty tell rows of another kind: histograms of the predictive entropy inside and outside."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.beliefs import ClassBeliefs
from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import Table, figure, named, svg
from levelhead.report.markup import Markup, el, join, number
from levelhead.report.scale import Scale, tick_text
from levelhead.report.words import metric, spoken

BINS = 24
PANEL = (212.0, 150.0)


def histograms(evidence: Evidence) -> list[tuple[str, Markup]]:
    """For each outer set, its name and a figure of one panel a recipe."""
    return [(name, made) for name in evidence.ood if (made := _figure(evidence, name)) is not None]


def _figure(evidence: Evidence, outer: str) -> Markup | None:
    panels, rows = [], []
    for contender in evidence.done:
        inside, outside = (_entropies(contender, key) for key in ("test", f"ood-{outer}"))
        if inside is None or outside is None:
            continue
        limit = _largest(contender)
        panels.append((named(contender.series), _panel(evidence, contender, outer, inside, outside, limit)))
        rows.append((contender.series.name, *_row(contender, outer, inside, outside)))
    if not panels:
        return None
    heads = ("Recipe", "AUROC", "Mean entropy, test", f"Mean entropy, {spoken(outer)}")
    numbers = Table(heads, tuple(rows)).markup(f"Predictive entropy on test rows and on {spoken(outer)}")
    swatches = (
        el("span", class_="swatch in"),
        " test rows, filled; ",
        el("span", class_="swatch out"),
        f" {spoken(outer)}, outlined. ",
    )
    caption = join(
        "Share of rows by predictive entropy in nats, from certain (left) to a guess (right), seeds together: ",
        *swatches,
        "The further apart, the better one can refuse what the recipe was not trained for; AUROC 0.5 is chance.",
    )
    return figure(panels, caption=caption, numbers=numbers, small=True)


def _entropies(contender: Contender, key: str) -> Float[Tensor, " row"] | None:
    found = [beliefs.total for beliefs in contender.beliefs(ClassBeliefs, [key])]
    return torch.cat(found) if found else None


def _largest(contender: Contender) -> float:
    """Entropy of a guess."""
    first = next(contender.beliefs(ClassBeliefs, ["test"]))
    return math.log(first.log_probs.shape[-1])


def _row(contender: Contender, outer: str, inside: Tensor, outside: Tensor) -> tuple[str, ...]:
    return _auroc(contender, outer), f"{float(inside.mean()):.3f}", f"{float(outside.mean()):.3f}"


def _auroc(contender: Contender, outer: str) -> str:
    found = contender.estimate("auroc_total", "ood", outer)
    return "not known" if found is None else metric("auroc_total").write_estimate(found)


def _panel(
    evidence: Evidence, contender: Contender, outer: str, inside: Tensor, outside: Tensor, limit: float
) -> Markup:
    width, height = PANEL
    counts = [torch.histc(values.float(), BINS, 0.0, limit) / len(values) for values in (inside, outside)]
    x = Scale(0.0, limit, 8, width - 8)
    y = Scale(0.0, max(float(c.max()) for c in counts) * 1.18, height - 34, 4)
    ticks = [el("text", tick_text(tick), x=x(tick), y=height - 20, class_="t c") for tick in x.ticks(4)]
    axis = el("line", x1=x.start, x2=x.stop, y1=y.start, y2=y.start, class_="axis")
    label = el("text", "Predictive entropy, nats", x=width / 2, y=height - 5, class_="l c")
    inner, outline = (_steps(values.tolist(), x, y) for values in counts)
    shapes = (
        el("path", d=f"{inner}V{number(y.start)}H{number(x.start)}z", class_="area"),
        el("path", d=outline, class_="out"),
    )
    note = el("text", f"AUROC {_auroc(contender, outer)}", x=width - 8, y=14, class_="t e")
    text = (
        f"AUROC {_auroc(contender, outer)}. Mean entropy {float(inside.mean()):.2f} nats on test rows, "
        f"{float(outside.mean()):.2f} on {spoken(outer)}."
    )
    slug = f"ood-{evidence.slug}-{outer}-{contender.series.number}"
    title = f"Entropy of {contender.series.name} on test rows and {spoken(outer)}"
    return svg(slug, PANEL, axis, *ticks, label, contender.series.group(*shapes), note, title=title, text=text)


def _steps(heights: list[float], x: Scale, y: Scale) -> str:
    """A staircase from the left edge to the right one."""
    step = (x.stop - x.start) / len(heights)
    moves = "".join(f"V{number(y(height))}H{number(x.start + step * (k + 1))}" for k, height in enumerate(heights))
    return f"M{number(x.start)} {number(y.start)}{moves}"
