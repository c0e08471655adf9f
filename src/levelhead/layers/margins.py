"""What stands beyond the edge of a map when a filter reaches over it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MARGINS = ("zero", "reflect", "replicate", "circular")
Margin = tuple[int, int, int, int]  # left, right, top, bottom, as torch has them


def check_margins(owner: str, padding: str) -> None:
    """ValueError for a padding that there is not."""
    if padding not in MARGINS:
        raise ValueError(f"{owner}: padding must be one of {', '.join(map(repr, MARGINS))}; got {padding!r}")


def fits(padding: str, size: int, reach: int) -> bool:
    """Whether a map of `size` pixels can be continued by `reach` of them."""
    return {"reflect": reach < size, "circular": reach <= size}.get(padding, True)


def extended(x: Float[Tensor, "batch channel h w"], margin: Margin, padding: str) -> Float[Tensor, "batch channel g v"]:
    """The map, continued on all sides: by zeros, mirrored about its last pixel, by its last pixel, or around.

    Where the map is too small to be mirrored or wrapped so far, its last pixel goes on.
    """
    if not any(margin):
        return x
    if padding == "zero":
        return F.pad(x, margin)
    left, right, top, bottom = margin
    if not (fits(padding, x.shape[3], max(left, right)) and fits(padding, x.shape[2], max(top, bottom))):
        padding = "replicate"
    return F.pad(x, margin, mode=padding)
