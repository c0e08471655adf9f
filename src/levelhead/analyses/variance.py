"""How much the maps of a network vary, by depth: over places of a map, and from pass to pass of one that draws."""

from typing import NamedTuple

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.analyses.blocks import Block, blocks, watched
from levelhead.analyses.running import roots
from levelhead.network import Network
from levelhead.passes import seeded


class Variance(NamedTuple):
    """The variance of one block's maps, averaged over rows and channels."""

    block: Block
    value: float
    rows: int


def spatial_variance(z: Float[Tensor, "rows channel h w"]) -> Float[Tensor, " rows"]:
    """The unbiased variance over the places of each map, averaged over channels. Park & Kim (arXiv 2105.12639)."""
    return reduce(z.var(dim=(-2, -1), unbiased=True), "rows channel -> rows", "mean")


def feature_map_variance(
    module: nn.Module, x: Float[Tensor, "batch channel h w"], *, batch_size: int = 100
) -> tuple[Variance, ...]:
    """The spatial variance of every block of a network, or of all networks of a predictor together, by depth.

    In the squared units of the maps. Convolutions raise it, attention and smoothing lower it. Raises CannotCompose
    where there is no map to read.
    """
    chosen = blocks(module, x)
    sums: dict[Block, tuple[float, int]] = {}

    def see(block: Block, z: Tensor) -> None:
        total, rows = sums.get(block, (0.0, 0))
        sums[block] = (total + float(spatial_variance(z.float()).double().sum()), rows + len(z))

    with watched(module, chosen, see):
        for some in x.split(batch_size):
            module(some)
    return tuple(_mean(block, *sums[block]) for block in chosen if block in sums)


def pass_variance(
    module: nn.Module, x: Float[Tensor, "batch channel h w"], *, passes: int = 8, seed: int = 0, batch_size: int = 100
) -> tuple[Variance, ...]:
    """The unbiased variance over stochastic passes (MC dropout, ...) at every point of every block's maps, by depth.

    Of the networks, or a predictor's networks, that hold layers which draw; of other modules their dropouts draw.
    Nothing varies in front of the first of them. Means over rows, channels and places.

    passes  2 or more; pass k of a batch draws from seed + k. Raises ValueError where nothing draws, and CannotCompose
            where there is no map to read.
    """
    if passes < 2:
        raise ValueError(f"pass_variance: passes must be at least 2, got {passes}")
    drawing = [root for root in roots(module) if _draws(root)]
    if not drawing:
        raise ValueError(
            "pass_variance: no layer draws, so that every pass is the same; mc_dropout adds layers that do"
        )
    sums: dict[Block, tuple[float, int]] = {}
    for root in drawing:
        chosen = blocks(root, x)
        for some in x.split(batch_size):
            for block, (total, rows) in _over_passes(root, some, chosen, passes, seed).items():
                old = sums.get(block, (0.0, 0))
                sums[block] = (old[0] + total, old[1] + rows)
    return tuple(_mean(block, total, rows) for block, (total, rows) in sums.items())


def _over_passes(
    root: nn.Module, x: Tensor, chosen: tuple[Block, ...], passes: int, seed: int
) -> dict[Block, tuple[float, int]]:
    """The sum over rows of each block's variance, and the rows."""
    mean: dict[Block, Tensor] = {}
    squares: dict[Block, Tensor] = {}
    seen: dict[Block, list[Tensor]] = {}
    dropouts = [child for child in root.modules() if isinstance(child, nn.modules.dropout._DropoutNd)]
    with watched(root, chosen, lambda block, z: seen.setdefault(block, []).append(z)):
        for number in range(passes):
            seen.clear()
            with seeded(seed + number, x.device):
                if isinstance(root, Network):
                    root(x, num_samples=1)
                else:
                    for dropout in dropouts:
                        dropout.train()  # `watched` puts the modes back
                    root(x)
            for block, pieces in seen.items():  # Welford's sums
                z = torch.cat(pieces).double()
                before = mean.get(block, torch.zeros_like(z))
                mean[block] = before + (z - before) / (number + 1)
                squares[block] = squares.get(block, torch.zeros_like(z)) + (z - before) * (z - mean[block])
    return {block: (float(total.mean((1, 2, 3)).sum()) / (passes - 1), len(total)) for block, total in squares.items()}


def _draws(root: nn.Module) -> bool:
    if isinstance(root, Network):
        return root.stochastic
    return any(isinstance(child, nn.modules.dropout._DropoutNd) and child.p > 0 for child in root.modules())


def _mean(block: Block, total: float, rows: int) -> Variance:
    return Variance(block, total / rows, rows)
