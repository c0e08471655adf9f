"""Do predicted quantiles hold what they promise: the share of targets below each quantile of the prediction."""

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.beliefs import TargetBeliefs
from levelhead.metrics.regression import mixture_cdf
from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import Table, figure, frame, named, polyline, svg
from levelhead.report.markup import Markup, el
from levelhead.report.scale import Scale

LEVELS = tuple(k / 20 for k in range(1, 20))
SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)
SQUARE = (212.0, 214.0)


def quantile_plots(evidence: Evidence) -> Markup | None:
    """One panel a recipe: the share of test targets below each predicted quantile, all splits together."""
    panels, rows = [], []
    for contender in evidence.done:
        places = _places(contender)
        if places is None:
            continue
        shares = [float((places <= level).double().mean()) for level in LEVELS]
        panels.append((named(contender.series), _panel(evidence, contender, shares)))
        rows.append((contender.series.name, *(f"{100 * shares[LEVELS.index(level)]:.1f} %" for level in SHOWN)))
    if not panels:
        return None
    heads = ("Recipe", *(f"{100 * level:.0f} % quantile" for level in SHOWN))
    caption = (
        "Share of test targets below each quantile of the prediction, seeds together. On the diagonal, quantiles are "
        "right; flatter than the diagonal is overconfident (too many targets in the tails), steeper is too cautious."
    )
    table = Table(heads, tuple(rows)).markup("Share of targets below each predicted quantile")
    return figure(panels, caption=caption, numbers=table, small=True)


def _places(contender: Contender) -> Float[Tensor, " value"] | None:
    """Where each target lies in its predicted distribution, in [0, 1]."""
    found = [
        mixture_cdf(beliefs.means, beliefs.variances, y=beliefs.y, log_weights=beliefs.log_weights).flatten()
        for beliefs in contender.beliefs(TargetBeliefs, ["test"])
    ]
    return torch.cat(found) if found else None


def _panel(evidence: Evidence, contender: Contender, shares: list[float]) -> Markup:
    width, height = SQUARE
    x, y = Scale(0, 1, 30, width - 8), Scale(0, 1, height - 36, 8)
    grid = frame(x, y, x_label="Predicted quantile", x_ticks=[0, 0.5, 1], y_ticks=[0, 0.5, 1])
    diagonal = el("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="ref")
    curve = [(x(level), y(share)) for level, share in zip(LEVELS, shares, strict=True)]
    dots = [contender.series.marker(*place, radius=2.4) for place in curve[1::4]]
    low, high = (f"{100 * share:.1f} percent" for share in (shares[0], shares[-1]))
    text = f"{low} of the targets lie below the 5 % quantile and {high} below the 95 % quantile."
    slug = f"quantiles-{evidence.slug}-{contender.series.number}"
    title = f"Quantiles of {contender.series.name}"
    return svg(slug, SQUARE, grid, diagonal, contender.series.group(polyline(curve), dots), title=title, text=text)
