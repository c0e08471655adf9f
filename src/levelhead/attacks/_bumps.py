"""The moves of the Square attack in L2: bumps of two signs, to which the length of another window is given."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.attacks._ball import along, length

TILES = 5  # a side, of the first point
TINY = 1e-12  # where a window holds no change


def bump(side: int, *, flipped: bool = False) -> Float[Tensor, "side side"]:
    """Length one: a bump in the upper half, its negative in the lower; `flipped` left and right.

    In each half a pixel m pixels (in the larger of both directions) from the centre has sum_{j >= m} 1 / (j + 1)^2.
    """
    upper = side // 2
    both = torch.cat([_half(upper, side), -_half(side - upper, side)]) if upper else torch.ones(1, 1)
    found = both / both.norm()
    return found.mT if flipped else found


def _half(height: int, width: int) -> Float[Tensor, "height width"]:
    down, across = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    away = torch.maximum(down[:, None].abs(), across.abs())
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2).double().square()
    found = terms.flip(0).cumsum(0).flip(0)[away].float()
    return found / found.norm()


def first_change(
    x: Float[Tensor, "row channel height width"], numbers: Float[Tensor, "row tiles number"]
) -> Float[Tensor, "row channel height width"]:
    """A bump in each of 5 x 5 tiles, every channel with its own sign; numbers in [0, 1): a turn, and the signs."""
    height, width = x.shape[2:]
    side = max(min(height, width) // TILES, 1)
    shapes = torch.stack([bump(side), bump(side, flipped=True)]).to(x)
    signs = (numbers[..., 1:] < 0.5).to(x) * 2 - 1
    tiles = shapes[(numbers[..., 0] < 0.5).long()][:, :, None] * signs[..., None, None]
    change = torch.zeros_like(x)
    for tile in range(min(height // side, TILES) * min(width // side, TILES)):
        top, left = (tile // min(width // side, TILES)) * side, (tile % min(width // side, TILES)) * side
        change[:, :, top : top + side, left : left + side] = tiles[:, tile]
    return change


def moved_bump(
    change: Float[Tensor, "row channel height width"],
    numbers: Float[Tensor, "row number"],
    *,
    side: int,
    eps: float,
) -> Float[Tensor, "row channel height width"]:
    """The change with a bump added in one window, which gets the length of another, emptied one. Of length eps.

    numbers in [0, 1): places of both windows (4), a turn, and a sign a channel.
    """
    into = _window(change, numbers[:, 0], numbers[:, 1], side)
    out_of = _window(change, numbers[:, 2], numbers[:, 3], side)
    shapes = torch.stack([bump(side), bump(side, flipped=True)]).to(change)
    placed = _placed(change, shapes[(numbers[:, 4] < 0.5).long()], numbers[:, 0], numbers[:, 1])
    signs = ((numbers[:, 5:] < 0.5).to(change) * 2 - 1)[:, :, None, None]
    there = change * into
    fresh = placed * signs + there / (_norms(there) + TINY)
    held = _norms(change * (into | out_of))
    spare = along((eps**2 - length(change, "l2").square()).clamp_min(0.0), change) / change.shape[1]
    fresh = fresh / (_norms(fresh) + TINY) * (spare + held.square()).sqrt()
    found = change * ~(into | out_of) + fresh
    return eps * found / along(length(found, "l2").clamp_min(TINY), found)


def _norms(change: Tensor) -> Float[Tensor, "row channel 1 1"]:
    """Of each channel."""
    return torch.linalg.vector_norm(change, dim=(-2, -1), keepdim=True)


def _corners(
    change: Tensor, down: Tensor, across: Tensor, side: int
) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
    height, width = change.shape[2:]
    return (down * (height - side + 1)).long(), (across * (width - side + 1)).long()


def _window(change: Tensor, down: Tensor, across: Tensor, side: int) -> Bool[Tensor, "row 1 height width"]:
    top, left = _corners(change, down, across, side)
    ys, xs = (torch.arange(size, device=change.device) for size in change.shape[2:])
    inside_y = (ys >= top[:, None]) & (ys < top[:, None] + side)
    inside_x = (xs >= left[:, None]) & (xs < left[:, None] + side)
    return inside_y[:, None, :, None] & inside_x[:, None, None, :]


def _placed(change: Tensor, shapes: Tensor, down: Tensor, across: Tensor) -> Float[Tensor, "row 1 height width"]:
    """Each row's shape in its window, zero elsewhere."""
    side = shapes.shape[-1]
    top, left = _corners(change, down, across, side)
    ys, xs = (torch.arange(size, device=change.device) for size in change.shape[2:])
    at_y = (ys - top[:, None]).clamp(0, side - 1)[:, :, None]
    at_x = (xs - left[:, None]).clamp(0, side - 1)[:, None, :]
    rows = torch.arange(len(shapes), device=change.device)[:, None, None]
    return shapes[rows, at_y, at_x][:, None] * _window(change, down, across, side)
