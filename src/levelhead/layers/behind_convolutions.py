"""Where something may stand behind the convolutions of a network, found by running an example (`network.trace()`)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from levelhead.declared import Membered
from levelhead.probe import Call, Trace

WHERE = ("convolutions", "stages", "early")
OTHERS = (nn.Conv1d, nn.Conv3d)
ONE_PIXEL = "its map has one pixel"
NO_MAP = "it convolves {kind}, and filters are for maps (batch, channel, height, width)"


class Site(NamedTuple):
    """Behind a convolution, or behind the layer of members that holds it; one block and width have one `group`."""

    name: str
    channels: int
    group: str


class Sites(NamedTuple):
    """The sites in order of execution, and convolutions that have no map to filter, with the reason."""

    found: tuple[Site, ...]
    left: tuple[tuple[str, str], ...]


def behind_convolutions(trace: Trace, *, where: str = "convolutions", shortcuts: bool = False) -> Sites:
    """The two-dimensional convolutions of the main path.

    where      "convolutions"  all of them.
               "stages"        of those whose maps have one size the second, or the only one.
               "early"         the first, and those whose maps have the size of the second's: stem and first stage.
    shortcuts  also those of the shortcuts beside a block's main path.
    """
    walk = _Walk(trace)
    seen = [c for c in walk.convolutions if shortcuts or not walk.is_shortcut(c)]
    maps = [c for c in seen if math.prod(trace.calls[c].output_shape[2:]) > 1]
    chosen = [maps[i] for i in _chosen([trace.calls[c].output_shape[2:] for c in maps], where)]
    left = [(trace.calls[c].name, ONE_PIXEL) for c in seen if c not in maps]
    left += [(call.name, NO_MAP.format(kind=type(call.module).__name__[4:])) for call in trace.of(*OTHERS)]
    by_name = {site.name: site for site in map(walk.site, chosen)}
    return Sites(tuple(by_name.values()), tuple(dict.fromkeys(left)))


class _Walk:
    """The convolutions of a trace, by their calls, and what stands around them.

    Layers of members directly around a convolution, which may call it for each member, stand for it.
    """

    def __init__(self, trace: Trace) -> None:
        self.calls = trace.calls
        self.around = trace.around()
        found = {self.whole(i): conv for i, call in enumerate(self.calls) if (conv := _convolution(call)) is not None}
        self.convolutions = dict(sorted(found.items()))

    def site(self, i: int) -> Site:
        """The site behind a convolution."""
        name, channels = self.calls[i].name, self.calls[i].output_shape[1]
        block = self.block(i)
        return Site(name, channels, name if block is None else f"{self.calls[block].name} of {channels}")

    def whole(self, i: int) -> int:
        """The outermost of the layers of members that are directly around a convolution; else itself."""
        whole = i
        for outer in reversed(self.around[i]):
            if not isinstance(self.calls[outer].module, Membered):
                break
            whole = outer
        return whole

    def block(self, i: int) -> int | None:
        """The innermost module around a convolution, no mere sequence, that holds another one; None where there is
        none, or where it reads the image."""
        for outer in reversed(self.around[i]):
            composite = outer > 0 and not isinstance(self.calls[outer].module, nn.Sequential | Membered)
            if composite and len(self.inside(outer)) > 1:
                return outer if min(self.convolutions) < outer else None
        return None

    def inside(self, block: int) -> list[int]:
        """The convolutions in a block."""
        return [c for c in self.convolutions if block in self.around[c]]

    def is_shortcut(self, i: int) -> bool:
        """Whether a convolution of one pixel leads from a block's input to its output, beside others that do together.

        Those begin at the input, too, and one of them returns a map of the same shape, to which it is added.
        """
        block = self.block(i)
        if block is None or set(self.convolutions[i].kernel_size) != {1}:
            return False
        inside, shape = self.inside(block), self.calls[i].output_shape
        begins = [c for c in inside if self.begins(c, block, inside)]
        beside = any(self.calls[c].output_shape == shape for c in inside if c != i)
        return i in begins and len(begins) > 1 and shape == self.calls[block].output_shape and beside

    def begins(self, i: int, block: int, inside: Sequence[int]) -> bool:
        """Whether a convolution reads what enters its block, and not what an earlier one there returned."""
        same = (block, *(c for c in inside if c != i))
        if any(self.calls[c].source == self.calls[i].source for c in same):
            return True
        return not any(self.calls[c].output_shape == self.calls[i].input_shape for c in inside if c < i)


def _chosen(sizes: Sequence[tuple[int, ...]], where: str) -> list[int]:
    """Places in a list of maps, by their sizes."""
    if where == "convolutions":
        return list(range(len(sizes)))
    if where == "early":
        return [i for i, size in enumerate(sizes) if i == 0 or size == sizes[1]]
    places = {size: [i for i, other in enumerate(sizes) if other == size] for size in sizes}
    return sorted(same[min(1, len(same) - 1)] for same in places.values())


def _convolution(call: Call) -> nn.Conv2d | None:
    """The convolution that a call makes a map with; a layer of members may use the weight of one without calling it."""
    if len(call.output_shape) != 4 or math.prod(call.pixels) <= 1:
        return None
    held = call.module.children() if isinstance(call.module, Membered) else iter((call.module,))
    return next((module for module in held if isinstance(module, nn.Conv2d)), None)
