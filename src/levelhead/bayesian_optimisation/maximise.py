"""The largest value of a function on a box: many points to look at, then gradient ascent from the best ones."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Value = Callable[[Tensor], Tensor]  # (point, dimension) -> (point,)


def maximise(
    value: Value,
    num_dimensions: int,
    *,
    seed: int = 0,
    candidates: int = 2000,
    starts: int = 8,
    steps: int = 30,
    lr: float = 0.02,
    near: Float[Tensor, "point dimension"] | None = None,
) -> Float[Tensor, " dimension"]:
    """Where `value` is largest in [-1, 1]^d, as far as was found.

    The `starts` best of `candidates` Sobol points, and of some around the points `near`, climb `steps` steps of Adam
    inside the box; the best point seen on any way is returned.
    """
    sobol = torch.quasirandom.SobolEngine(num_dimensions, scramble=True, seed=seed)
    points = 2 * sobol.draw(candidates).float() - 1
    if near is not None:
        generator = torch.Generator().manual_seed(seed)
        around = near.repeat_interleave(max(1, candidates // (10 * len(near))), dim=0)
        points = torch.cat([points, (around + 0.1 * torch.randn(around.shape, generator=generator)).clamp(-1, 1)])
    with torch.no_grad():
        values = value(points)
    top = values.topk(min(starts, len(points)))
    best_value, best = top.values.clone(), points[top.indices]
    walk = best.clone().requires_grad_(True)
    adam = torch.optim.Adam([walk], lr=lr)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(-value(walk).sum(), walk)
        walk.grad = slope
        adam.step()
        with torch.no_grad():
            walk.clamp_(-1, 1)
            reached = value(walk)
            better = reached > best_value
            best_value = torch.where(better, reached, best_value)
            best = torch.where(better[:, None], walk, best)
    return best[best_value.argmax()].detach()
