"""Fixed masks on channels, one a member: dropout that knows which member it is."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.declared import Membered


class Masks(Membered):
    """Member k sees the channels of mask k alone; nothing is rescaled. The masks are saved with the network.

    channels      of the input, along channel_axis.
    scale         s >= 1, see `draw_masks`.
    """

    masks: Tensor

    def __init__(self, channels: int, num_members: int, *, scale: float, channel_axis: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.channel_axis = channel_axis
        self.register_buffer("masks", draw_masks(channels, num_members, scale).to(torch.get_default_dtype()))

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """The rows with the other channels at zero, member-major as they came."""
        z = self.by_member(x)
        shape = [self.num_members] + [1] * (z.ndim - 1)
        shape[self.channel_axis if self.channel_axis < 0 else self.channel_axis + 1] = -1
        return (z * self.masks.reshape(shape).to(z.dtype)).flatten(0, 1)

    def extra_repr(self) -> str:
        """Sizes, and how much members have in common."""
        return f"{self.masks.shape[1]} channels, {self.num_members} members, {int(self.masks[0].sum())} channels each"


def draw_masks(channels: int, num_masks: int, scale: float) -> Bool[Tensor, "mask channel"]:
    """Masks of m ones each, every channel in at least one of them; from torch's global stream.

    As in the paper: each mask is m of L = m * scale places without replacement, and places that no mask uses are
    dropped, which leaves m s (1 - (1 - 1/s)^n) of them on average; m and L are chosen for `channels`, and drawn again
    until it is exactly `channels` and, where they can, the masks differ. Two masks share 1 / (2 s - 1) of what they use
    together: s = 1 gives masks of ones (one network), a large s members with nothing in common.
    """
    share = scale * (1 - (1 - 1 / scale) ** num_masks)
    ones = min(channels, max(-(-channels // num_masks), round(channels / share)))
    candidates = range(channels, num_masks * ones + 1)
    places = min(candidates, key=lambda n: abs(n * (1 - (1 - ones / n) ** num_masks) - channels))
    can_differ = math.comb(channels, ones) >= num_masks
    while True:  # one in some ten tries at 512 channels
        picked = torch.rand(num_masks, places).argsort(dim=1)[:, :ones]
        masks = torch.zeros(num_masks, places, dtype=torch.bool).scatter_(1, picked, True)
        used = masks.any(0)
        apart = len(masks.unique(dim=0)) == num_masks or not can_differ
        if int(used.sum()) == channels and apart:
            return masks[:, used]


def common(masks: Float[Tensor, "mask channel"]) -> float:
    """Mean over pairs of masks: channels of both, as a share of the channels of either."""
    both, ones = masks @ masks.T, masks.sum(1)
    either = ones[:, None] + ones[None] - both
    pairs = torch.triu_indices(len(masks), len(masks), offset=1)
    return float((both / either)[pairs[0], pairs[1]].mean())
