"""What a next point is worth: functions of what a surrogate believes about it. All are to be made large.

mean and std are those of a noise-free function at each point, in its units; `best` is the largest value known.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-12  # of a standard deviation that is divided by


def upper_bound(mean: Float[Tensor, " point"], std: Float[Tensor, " point"], *, c: float) -> Float[Tensor, " point"]:
    """mean + c std."""
    return mean + c * std


def expected_improvement(
    mean: Float[Tensor, " point"], std: Float[Tensor, " point"], *, best: float
) -> Float[Tensor, " point"]:
    """E max(0, f - best) = (mean - best) Phi(z) + std phi(z), z = (mean - best) / std, for normal f."""
    std = std.clamp_min(SMALLEST)
    z = (mean - best) / std
    density = (-0.5 * z.square()).exp() / (2 * torch.pi) ** 0.5
    return (mean - best) * torch.special.ndtr(z) + std * density


def probability_of_improvement(
    mean: Float[Tensor, " point"], std: Float[Tensor, " point"], *, best: float
) -> Float[Tensor, " point"]:
    """P(f > best) = Phi((mean - best) / std) for normal f."""
    return torch.special.ndtr((mean - best) / std.clamp_min(SMALLEST))
