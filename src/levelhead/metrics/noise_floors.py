"""What four calibration errors read on this many rows when the probabilities are exactly right, cheaply and together.

`noise_floor` simulates any metric by calling it again and again; here the draws share their labels, bins and kernels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.metrics.calibration import NUM_BINS, equal_mass_edges, equal_width_edges
from levelhead.metrics.rows import normalised_rows
from levelhead.metrics.smooth_calibration import mean_smooth_error
from levelhead.types import Scalar

DRAWS = 100
FEW, FEWER = 20, 8  # draws of what costs more; each is a sum over many bins already


class Floors(NamedTuple):
    """Means over draws of labels from the probabilities."""

    ece: Scalar
    adaptive_ece: Scalar
    smooth_ece: Scalar
    classwise_ece: Scalar


def noise_floors(log_probs: Float[Tensor, "*batch class"], *, seed: int = 0, bins: int = NUM_BINS) -> Floors:
    """The floors of `ece`, `adaptive_ece`, `smooth_ece` and `classwise_ece` (100, 100, 20, 8 draws).

    For the top label only hits matter, which are Bernoulli(confidence). The smooth floor is on a coarser grid than
    `smooth_ece`, good to a few per cent.
    """
    log_probs = normalised_rows(log_probs)
    probs = log_probs.exp().clamp_max(1.0)
    confidence = probs.amax(-1)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(DRAWS, len(confidence), generator=generator, dtype=torch.float64).to(confidence.device)
    residual = (draws < confidence).double() - confidence
    tables = [
        F.one_hot(torch.bucketize(confidence, edges[1:-1]), len(edges) - 1).double()
        for edges in (equal_width_edges(bins).to(confidence.device), equal_mass_edges(confidence, bins=bins))
    ]
    gaps = (residual @ torch.cat(tables, dim=-1) / len(confidence)).abs()
    width = tables[0].shape[-1]
    return Floors(
        gaps[:, :width].sum(-1).mean(),
        gaps[:, width:].sum(-1).mean(),
        mean_smooth_error(confidence, residual[:FEW]),
        _classwise(probs, bins=bins, generator=generator),
    )


def _classwise(probs: Float[Tensor, "row class"], *, bins: int, generator: torch.Generator) -> Scalar:
    """Sum over classes and bins of |labels there - probability there|: each draw moves the labels alone."""
    num, num_classes = probs.shape
    cell = torch.bucketize(probs, equal_width_edges(bins)[1:-1].to(probs.device))
    cell = cell + bins * torch.arange(num_classes, device=probs.device)
    expected = probs.new_zeros(bins * num_classes).index_add(0, cell.flatten(), probs.flatten())
    labels = torch.multinomial(probs.to(generator.device), FEWER, replacement=True, generator=generator)
    labels = labels.to(probs.device)
    reached = cell.gather(1, labels) + bins * num_classes * torch.arange(FEWER, device=probs.device)
    seen = probs.new_zeros(FEWER * bins * num_classes)
    seen = seen.index_add(0, reached.flatten(), torch.ones_like(reached.flatten(), dtype=probs.dtype))
    return (seen.reshape(FEWER, -1) - expected).abs().sum(-1).mean() / (num * num_classes)
