"""The prior precision of a Laplace posterior under which its predictions lose least on held-out rows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.evidence import PRIOR_RANGE
from levelhead.curvature.fit_head import as_double
from levelhead.curvature.head_laplace import HeadLaplace
from levelhead.curvature.line_search import minimise
from levelhead.curvature.network_laplace import NetworkLaplace
from levelhead.curvature.readout import linear_readout, read_noisy
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network
from levelhead.predictive import Predictive
from levelhead.tasks.split import Split
from levelhead.types import Targets

GRID_POINTS = 21


@torch.no_grad()
def tuned_head(made: HeadLaplace, calibration: Split, grid: tuple[float, ...] | None) -> float:
    """The prior precision, of a grid or of all, under which the predictions lose least on held-out rows."""
    like = next(made.network.parameters())
    layer = linear_readout(made.network)
    batches = [batch.to(like.device, like.dtype) for batch in calibration.ordered(500)]
    passes = [read_noisy(made.network, layer, batch.x, made.noise) for batch in batches]

    def loss(prior: float) -> float:
        made.prior_precision = prior
        return sum(
            held_out(made.belief(reading), batch.y, made.network) * len(batch.y)
            for reading, batch in zip(passes, batches, strict=True)
        )

    return min(grid, key=loss) if grid else minimise(loss, *PRIOR_RANGE, points=GRID_POINTS, tolerance=1e-3)


@torch.no_grad()
def tuned_network(made: NetworkLaplace, calibration: Split, grid: tuple[float, ...] | None) -> float:
    """The same beyond the head: of a grid; or of a coarse one and then of a finer one around its best, two passes."""
    if grid:
        return grid[int(losses(made, calibration, list(grid)).argmin())]
    low, high = PRIOR_RANGE
    coarse = torch.logspace(math.log10(low), math.log10(high), GRID_POINTS).tolist()
    best = int(losses(made, calibration, coarse).argmin())
    low, high = coarse[max(best - 1, 0)], coarse[min(best + 1, GRID_POINTS - 1)]
    fine = torch.logspace(math.log10(low), math.log10(high), GRID_POINTS).tolist()
    return float(fine[int(losses(made, calibration, fine).argmin())])


def losses(made: NetworkLaplace, calibration: Split, grid: list[float]) -> Float[Tensor, " point"]:
    """The summed negative log likelihood on held-out rows under each precision of a grid."""
    like = next(made.network.parameters())
    total = torch.zeros(len(grid), dtype=torch.float64)
    for batch in calibration.ordered(500):
        batch = batch.to(like.device, like.dtype)
        for place, belief in enumerate(beliefs(made, batch.x, grid)):
            total[place] += held_out(belief, batch.y, made.network) * len(batch.y)
    return total


def beliefs(made: NetworkLaplace, x: Float[Tensor, "batch *input"], grid: list[float]) -> list[Predictive]:
    """The beliefs under each precision; draws of the weights want passes of their own."""
    ones = torch.ones_like(made.priors)
    if made.link != "weights":
        return made.under(x, [p * ones for p in grid])
    found, before = [], made.prior_precision
    for p in grid:
        made.prior_precision = tuple((p * ones).tolist())
        found.append(made(x))
    made.prior_precision = before
    return found


def held_out(belief: Predictive, y: Targets, network: Network) -> float:
    """The mean negative log likelihood of held-out rows, in float64."""
    return float(held_out_nll(belief, as_double(y), void=network.likelihood.void))
