"""How sure a number is: bootstrap within one run, standard error over seeds, intervals for shares."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.types import Scalar


class Estimate(NamedTuple):
    """A metric on all examples, its bootstrap standard error, and a percentile interval."""

    value: Scalar
    standard_error: Scalar
    low: Scalar
    high: Scalar


def bootstrap(
    metric: Callable[..., Scalar],
    *data: Tensor,
    generator: torch.Generator,
    replicates: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Uncertainty of metric(*data) from the finite choice of examples: recomputed on examples drawn with replacement.

    The tensors share their first axis, the examples; bind other arguments with functools.partial. Speaks of one
    trained predictor, not of another seed. Metrics biased in the number of examples (ECE) are biased again on each
    resample: use their standard error, and `noise_floor` instead of the interval. Efron 1979.
    """
    num = len(data[0])
    if num == 0 or any(len(tensor) != num for tensor in data):
        raise ValueError(f"data: wants tensors of the same number of examples, got {[len(t) for t in data]}")
    if replicates < 2:
        raise ValueError(f"replicates: wants at least 2, got {replicates}")
    if not 0 < level < 1:
        raise ValueError(f"level: wants a probability in (0, 1), got {level}")
    values = []
    for _ in range(replicates):
        rows = torch.randint(num, (num,), generator=generator, device=generator.device).to(data[0].device)
        values.append(metric(*(tensor[rows] for tensor in data)).double())
    replicated = torch.stack(values)
    tails = replicated.new_tensor([(1 - level) / 2, (1 + level) / 2])
    low, high = replicated.quantile(tails)
    return Estimate(metric(*data).double(), replicated.std(), low, high)


class SeedMean(NamedTuple):
    """Mean over seeds and its standard error."""

    mean: Float[Tensor, "*rest"]
    standard_error: Float[Tensor, "*rest"]


def over_seeds(values: Float[Tensor, "seed *rest"]) -> SeedMean:
    """Mean over the first axis and sd / sqrt(seeds), with the unbiased sd; NaN for one seed, which shows no spread."""
    values = values.double()
    if len(values) == 0:
        raise ValueError("values: wants at least one seed")
    if len(values) == 1:
        return SeedMean(values[0], torch.full_like(values[0], torch.nan))
    return SeedMean(values.mean(0), values.std(0) / len(values) ** 0.5)


class ShareInterval(NamedTuple):
    """Interval for a probability seen as a share of counts."""

    low: Float[Tensor, "*batch"]
    high: Float[Tensor, "*batch"]


def wilson_interval(
    hits: Float[Tensor, "*batch"] | Int[Tensor, "*batch"], count: Int[Tensor, "*batch"], *, level: float = 0.95
) -> ShareInterval:
    """Wilson score interval of hits / count, in [0, 1]; the whole of [0, 1] where the count is 0.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Wilson 1927.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: wants a probability in (0, 1), got {level}")
    hits, count = hits.double(), count.double()
    z2 = torch.special.ndtri(count.new_tensor((1 + level) / 2)).square()
    # multiplied through by n, so that an empty bin divides by z^2 and not by 0
    middle = hits + z2 / 2
    reach = (z2 * (hits * (count - hits) / count.clamp_min(1) + z2 / 4)).sqrt()
    return ShareInterval(((middle - reach) / (count + z2)).clamp_min(0), ((middle + reach) / (count + z2)).clamp_max(1))
