"""What a count of errors says about the rate behind it, with a stated confidence."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

BISECTIONS = 60


def clopper_pearson_upper(errors: int, count: int, *, delta: float) -> float:
    """The b with P(Bin(count, b) <= errors) = delta: above the error rate with probability at least 1 - delta.

    1 where all rows are errors, or there are none. Exact for any number of rows. Clopper & Pearson 1934.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta: wants a probability in (0, 1), got {delta}")
    if not 0 <= errors <= count:
        raise ValueError(f"errors: wants a number from 0 to {count}, got {errors}")
    if errors == count:
        return 1.0
    low, high = errors / count, 1.0
    log_counts = log_binomials(errors, count)
    hits = torch.arange(errors + 1, dtype=torch.float64)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        tail = torch.logsumexp(log_counts + hits * math.log(middle) + (count - hits) * math.log1p(-middle), 0)
        low, high = (middle, high) if float(tail) > math.log(delta) else (low, middle)
    return high


def log_binomials(errors: int, count: int) -> Float[Tensor, " errors"]:
    """log (count choose j) for j = 0 ... errors."""
    j = torch.arange(errors + 1, dtype=torch.float64)
    whole = torch.tensor(float(count + 1), dtype=torch.float64)
    return torch.lgamma(whole) - torch.lgamma(j + 1) - torch.lgamma(whole - j)
