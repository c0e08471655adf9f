"""How wide the bounds f +- c sigma are to be: three ways to c, and a search over the readout."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.nomu.likelihood import model_std
from levelhead.nomu.readout import Readout
from levelhead.predictive import LOG_TWO_PI, GaussianMixture

SMALLEST = 1e-12


def bounds(
    belief: GaussianMixture, *, c: float = 1.0
) -> tuple[Float[Tensor, "*batch target"], Float[Tensor, "*batch target"]]:
    """f - c sigma and f + c sigma, sigma the epistemic standard deviation: where the noise-free function may lie."""
    width = c * model_std(belief)
    return belief.mean - width, belief.mean + width


def mean_width_factor(std: Float[Tensor, "*batch target"], *, budget: float) -> float:
    """The c with mean(2 c sigma) = budget on these points, in the units of sigma."""
    if not budget > 0:
        raise ValueError(f"budget: wants a positive mean width, got {budget}")
    return budget / max(2 * float(std.detach().double().mean()), SMALLEST)


def coverage_factor(
    residual: Float[Tensor, "*batch target"], std: Float[Tensor, "*batch target"], *, level: float
) -> float:
    """The smallest c for which at least a share `level` of |y - f| <= c sigma on these points."""
    if not 0 < level <= 1:
        raise ValueError(f"level: wants a share in (0, 1], got {level}")
    ratio = (residual.double().abs() / std.double()).detach().flatten().sort().values
    return max(float(ratio[math.ceil(level * len(ratio)) - 1]), SMALLEST)


def nll_factor(residual: Float[Tensor, "*batch target"], std: Float[Tensor, "*batch target"]) -> float:
    """The c that minimises the Gaussian negative log likelihood: the root mean square of (y - f) / sigma."""
    return max(float((residual.double() / std.double()).detach().square().mean().sqrt()), SMALLEST)


def gaussian_nll(
    residual: Float[Tensor, "*batch target"], variance: Float[Tensor, "*batch target"]
) -> Float[Tensor, ""]:
    """Mean Gaussian negative log likelihood in nats, log(2 pi) / 2 included."""
    return 0.5 * (residual.square() / variance + variance.log() + LOG_TWO_PI).mean()


class Found(NamedTuple):
    """A readout and its loss."""

    readout: Readout
    nll: float


def search(
    raw: Float[Tensor, "*batch target"],
    residual: Float[Tensor, "*batch target"],
    noise: Float[Tensor, "*batch target"],
    readout: Readout,
    *,
    l_min: Sequence[float],
    l_max: Sequence[float],
    c: Sequence[float],
) -> Found:
    """The (l_min, l_max, c) of a grid with the smallest mean Gaussian NLL; all in standardised units.

    noise  the variance that is not the model's; 0 where there is none. The first of equals is taken.
    """
    best = Found(readout, math.inf)
    factors = torch.tensor(c, dtype=torch.float64, device=raw.device)
    raw, residual, noise = raw.double().flatten(), residual.double().flatten(), noise.double().flatten()
    for low in l_min:
        for high in l_max:
            if low > high:
                continue
            sigma = Readout(low, high, 1.0, readout.shape)(raw)
            variance = (factors[:, None] * sigma).square() + noise
            losses = 0.5 * (residual.square() / variance + variance.log() + LOG_TWO_PI).mean(-1)
            place = int(losses.argmin())
            if float(losses[place]) < best.nll:
                best = Found(Readout(low, high, c[place], readout.shape), float(losses[place]))
    return best


def logspace(low: float, high: float, num: int) -> tuple[float, ...]:
    """`num` numbers from low to high, equally apart in logarithm."""
    return tuple(torch.logspace(math.log10(low), math.log10(high), num, dtype=torch.float64).tolist())
