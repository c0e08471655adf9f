"""The two terms that shape raw model uncertainty: pulled to zero where the data are, pushed up where they are not."""

import torch
from jaxtyping import Float
from torch import Tensor


def in_sample(
    raw: Float[Tensor, "*batch target"], *, stable: bool, delta: float = 1.0
) -> Float[Tensor, "*batch target"]:
    """r^2; stable: 2 delta |r| - delta^2 beyond |r| = delta, the same value and slope there."""
    if not stable:
        return raw.square()
    size = raw.abs()
    return torch.where(size <= delta, raw.square(), 2 * delta * size - delta**2)


def out_of_sample(
    raw: Float[Tensor, "*batch target"], *, c_exp: float, stable: bool, c_neg: float = 1.0
) -> Float[Tensor, "*batch target"]:
    """exp(-c_exp r); stable: a straight line c_neg c_exp |r| above 1 for r < 0, where the exponential would overflow.

    With c_neg = 1 the two pieces meet at 0 with the same slope.
    """
    if not stable:
        return (-c_exp * raw).exp()
    return c_neg * c_exp * (-raw).clamp_min(0.0) + (-c_exp * raw.clamp_min(0.0)).exp()
