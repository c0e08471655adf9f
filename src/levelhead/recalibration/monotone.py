"""Maps of one probability at a time: isotonic curves and histograms, one a class or one for the top label."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import ClassRows
from levelhead.recalibration.members import Recalibrated


class Curves(Recalibrated):
    """g_k(p_k) renormalised over classes, or the top label's confidence c as g(c) and the rest in proportion.

    knots, values  (curve, knot): one curve a class, or one for the top label; knots ascend, and the last repeats as
                   padding. steps: right-closed steps up to each knot (histogram). False: straight lines between knots.
    blend          share of the unmapped probability: q = (1 - blend) g + blend p. Curves reach 0 and have plateaus; the
                   blend keeps logarithms finite, the order of classes on a plateau, and a gradient.
    """

    knots: Tensor
    values: Tensor

    def __init__(
        self,
        inner: Predictor,
        knots: Float[Tensor, "curve knot"],
        values: Float[Tensor, "curve knot"],
        steps: bool,
        top_label: bool,
        blend: float,
        fitted_on: str = "",
    ) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("knots", knots)
        self.register_buffer("values", values)
        self.steps = steps
        self.top_label = top_label
        self.blend = blend
        self.fitted_on = fitted_on
        self.eval()

    def mapped(self, log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        """See `Recalibrated.mapped`."""
        probs = log_probs.exp()
        mapped = self._top(probs) if self.top_label else self._each(probs)
        mixed = (1 - self.blend) * mapped + self.blend * probs
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log().log_softmax(-1)

    def _each(self, probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        flat = rearrange(probs, "... k -> k (...)")
        curved = rearrange(self._curve(flat), "k row -> row k").reshape(probs.shape)
        total = curved.sum(-1, keepdim=True)
        return torch.where(total > 0, curved / torch.where(total > 0, total, 1.0), probs)

    def _top(self, probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        confidence, label = probs.max(-1, keepdim=True)
        mapped = self._curve(confidence.reshape(1, -1)).reshape(confidence.shape)
        is_top = F.one_hot(label[..., 0], probs.shape[-1]).bool()
        rest = probs.masked_fill(is_top, 0.0)
        others = rest.sum(-1, keepdim=True)
        even = (~is_top).double() / (probs.shape[-1] - 1)  # where the rest has underflowed, nobody knows its shares
        shares = torch.where(others > 0, rest / torch.where(others > 0, others, 1.0), even)
        return torch.where(is_top, mapped, (1 - mapped) * shares)

    def _curve(self, p: Float[Tensor, "curve row"]) -> Float[Tensor, "curve row"]:
        knots, values = self.knots.double(), self.values.double()
        right = torch.searchsorted(knots, p.detach().contiguous()).clamp_max(knots.shape[-1] - 1)
        if self.steps:
            return values.gather(-1, right)
        left = (right - 1).clamp_min(0)
        low, high = knots.gather(-1, left), knots.gather(-1, right)
        share = torch.where(high > low, (p - low) / torch.where(high > low, high - low, 1.0), 1.0).clamp(0, 1)
        return torch.lerp(values.gather(-1, left), values.gather(-1, right), share)


def one_against_rest(rows: ClassRows) -> tuple[Float[Tensor, "class row"], Float[Tensor, "class row"]]:
    """Each class's probability, and whether it was the label."""
    probs = rearrange(rows.log_probs.exp(), "row k -> k row")
    hits = rearrange(F.one_hot(rows.labels, rows.log_probs.shape[-1]).double(), "row k -> k row")
    return probs, hits


def top_against_rest(rows: ClassRows) -> tuple[Float[Tensor, "1 row"], Float[Tensor, "1 row"]]:
    """The top label's probability, and whether it was right."""
    confidence, label = rows.log_probs.exp().max(-1)
    return rearrange(confidence, "row -> 1 row"), rearrange((label == rows.labels).double(), "row -> 1 row")


def isotonic(
    x: Float[Tensor, " row"], y: Float[Tensor, " row"]
) -> tuple[Float[Tensor, " knot"], Float[Tensor, " knot"]]:
    """The nondecreasing function of x nearest to y in squares: the ends of its level pieces, and their levels.

    Pool adjacent violators; rows with equal x are one. Ayer, Brunk, Ewing, Reid & Silverman 1955.
    """
    points, place, count = x.unique(sorted=True, return_inverse=True, return_counts=True)
    mean = torch.zeros_like(points).scatter_add_(0, place, y.to(points)) / count
    blocks: list[list[float]] = []  # level, weight, first point, last point
    for index, (level, weight) in enumerate(zip(mean.tolist(), count.tolist(), strict=True)):
        block = [level, float(weight), index, index]
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            weight = before[1] + block[1]
            block = [(before[0] * before[1] + block[0] * block[1]) / weight, weight, before[2], block[3]]
        blocks.append(block)
    ends = [int(place) for block in blocks for place in dict.fromkeys(block[2:])]
    levels = [block[0] for block in blocks for _ in dict.fromkeys(block[2:])]
    return points[torch.tensor(ends, device=points.device)], points.new_tensor(levels)


def histogram(
    x: Float[Tensor, " row"], y: Float[Tensor, " row"], *, num_bins: int
) -> tuple[Float[Tensor, " bin"], Float[Tensor, " bin"]]:
    """Right edges of bins of equal mass, and the mean of y in each; ties stay together, so there may be fewer bins."""
    ordered = x.sort().values
    last = (torch.arange(1, num_bins + 1, device=x.device) * len(x)) // num_bins - 1
    edges = ordered[last[last >= 0]].unique()
    place = torch.searchsorted(edges, x.contiguous()).clamp_max(len(edges) - 1)
    count = torch.zeros_like(edges).scatter_add_(0, place, torch.ones_like(x))
    total = torch.zeros_like(edges).scatter_add_(0, place, y.to(edges))
    return edges, total / count


def padded(curves: list[tuple[Tensor, Tensor]]) -> tuple[Float[Tensor, "curve knot"], Float[Tensor, "curve knot"]]:
    """Curves of different lengths as one table; the last knot repeats."""
    length = max(len(knots) for knots, _ in curves)
    columns = [[torch.cat([t, t[-1:].expand(length - len(t))]) for t in curve] for curve in curves]
    knots, values = (torch.stack(column) for column in zip(*columns, strict=True))
    return knots, values
