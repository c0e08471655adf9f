"""Where a network steps over pixels, pools them all, or multiplies by weights: the places to act before it does.

They are found by running an example (`network.trace()`), never by names.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from levelhead.declared import Membered
from levelhead.probe import Call, Trace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SHARED = "what follows {name} is no module, and {name} is called {count} times: nothing can stand behind one of them"


class Place(NamedTuple):
    """A spot in a network: in front of a module or behind it."""

    name: str
    behind: bool
    channels: int  # of what is there
    channel_axis: int = 1


class Places(NamedTuple):
    """Spots, and those that had to be left, with the reason."""

    found: tuple[Place, ...]
    left: tuple[tuple[str, str], ...]


def before_subsampling(trace: Trace, *, stem: bool = False) -> Places:
    """In front of every step over pixels: a strided convolution or pool; or behind the module before a functional one.

    Where several of a block's branches stride at the block's own resolution, or its first layer does, the spot is in
    front of the block: the shortcut sees the same map, also one that is no module. What reads the image itself, and
    a pool that follows a strided first convolution (ImageNet stems; unless `stem`), is left out.
    """
    tree = _Tree(trace)
    steps = tuple(step for step in tree.innermost("subsamples") if not trace.calls[step].collapses)
    kept = [step for step in steps if not tree.in_stem(step, pools=not stem)]
    spots = [tree.in_front(tree.block(step, steps)) for step in kept]
    functional, left = tree.functional_steps()
    return Places(tuple(dict.fromkeys((*spots, *functional))), left)


def before_global_pool(trace: Trace) -> Places:
    """In front of the last pooling of all pixels; or, where that is no module, behind the last one that returns a map.

    Nothing is found where the network ends in a map, or flattens it.
    """
    return _Tree(trace).global_pool()


def before_weights(trace: Trace) -> tuple[Place, ...]:
    """In front of every convolution and linear layer but the first, which reads the raw input."""
    tree = _Tree(trace)
    layers = [tree.in_front(i) for i in sorted(tree.linear | tree.convolutions)]
    return tuple(dict.fromkeys(place for place in layers if place.name != layers[0].name))


def inside_blocks(trace: Trace) -> tuple[Place, ...]:
    """In front of the last convolution on the main path of every block: of a basic block its second, of a bottleneck
    its third.
    """
    tree = _Tree(trace)
    return tuple(dict.fromkeys(tree.in_front(last) for last in tree.blocks().values()))


def blocks(trace: Trace) -> tuple[int, ...]:
    """The places, in `trace.calls`, of residual blocks of convolutions, and of blocks that are built like them.

    A block is a module behind the first convolution, no mere sequence, that holds a path of two convolutions and no
    smaller block.
    """
    return tuple(_Tree(trace).blocks())


def convolutions(trace: Trace) -> tuple[int, ...]:
    """The places, in `trace.calls`, of layers that convolve a map, the first one reading the image."""
    return tuple(sorted(_Tree(trace).convolutions))


class _Tree:
    """A trace with what stands around each call. A layer with parameters of members is taken whole."""

    def __init__(self, trace: Trace) -> None:
        self.calls = trace.calls
        self.around = trace.around()
        membered = {i for i, call in enumerate(self.calls) if isinstance(call.module, Membered)}
        self.whole = [next((outer for outer in self.around[i] if outer in membered), i) for i in range(len(self.calls))]
        self.visible = [i for i, whole in enumerate(self.whole) if whole == i]
        self.convolutions = {self.whole[i] for i, call in enumerate(self.calls) if _convolves(call)}
        self.linear = {self.whole[i] for i, call in enumerate(self.calls) if isinstance(call.module, nn.Linear)}
        self.times = Counter(call.name for call in self.calls)

    def blocks(self) -> dict[int, int]:
        """The blocks, and of each the last convolution on its main path."""
        found: dict[int, int] = {}
        for i in sorted(self.convolutions):
            block = next(self.composites(i), None)
            while block is not None and not self.continues(i, block):
                block = next(self.composites(block), None)
            if block is not None:
                found[block] = i
        outer = {other for block in found for other in self.around[block]}
        return {block: i for block, i in found.items() if block not in outer}

    def innermost(self, wanted: str) -> tuple[int, ...]:
        """The calls with a property (of `Call`) that no call inside them has, in order."""
        having = [i for i in self.visible if getattr(self.calls[i], wanted)]
        outer = {other for i in having for other in self.around[i]}
        return tuple(i for i in having if i not in outer)

    def in_stem(self, i: int, *, pools: bool = True) -> bool:
        """Whether a step reads the image, or (if `pools`) pools behind a strided first convolution."""
        before = sorted(c for c in self.convolutions if c < i)
        pools = pools and i not in self.convolutions
        return not before or (pools and len(before) == 1 and self.calls[before[0]].subsamples)

    def block(self, step: int, steps: tuple[int, ...]) -> int:
        """The call in front of which the step's map is to be changed: a block around it, or the step itself."""
        alone = step
        for outer in self.composites(step):
            call = self.calls[outer]
            holds_image = not any(c < outer for c in self.convolutions)
            if not call.subsamples or holds_image:
                continue
            inner = [i for i in steps if outer in self.around[i] and self.calls[i].pixels == call.pixels]
            sources = Counter(self.calls[i].source for i in inner)
            first = min(inner, default=step)
            convolved = any(outer < c < first for c in self.convolutions)
            twins = max(sources.values(), default=0) > 1 and not convolved
            if len(inner) > 1 and step in inner and (call.source in sources or twins):
                return outer
            if call.source == self.calls[step].source:
                alone = outer
        return alone

    def composites(self, i: int) -> Iterator[int]:
        """The calls around one that are no mere sequences, from the inside out, without the whole."""
        for outer in reversed(self.around[i]):
            if outer > 0 and not isinstance(self.calls[outer].module, nn.Sequential):
                yield outer

    def continues(self, i: int, block: int) -> bool:
        """Whether a convolution goes on from an earlier one of the block, as a shortcut does not."""
        call = self.calls[i]
        earlier = [self.calls[c] for c in self.convolutions if block < c < i]
        reads_image = not any(c < block for c in self.convolutions)
        goes_on = call.source != self.calls[block].source and any(e.output_shape == call.input_shape for e in earlier)
        return goes_on and not reads_image

    def in_front(self, i: int) -> Place:
        call = self.calls[i]
        axis = -1 if i in self.linear else 1
        return Place(call.name, behind=False, channels=call.input_shape[axis], channel_axis=axis)

    def functional_steps(self) -> tuple[tuple[Place, ...], tuple[tuple[str, str], ...]]:
        """Between modules: what left one is a third larger, both ways, than what the next one reads; channels agree."""
        found: list[Place] = []
        left: list[tuple[str, str]] = []
        for i in self.visible:
            following = self.after(i)
            if following == len(self.calls) or not self.is_leaf(i) or not any(c <= i for c in self.convolutions):
                continue
            got, wanted = self.calls[i].output_shape, self.calls[following].input_shape
            if len(got) != 4 or len(wanted) != 4 or got[:2] != wanted[:2] or math.prod(wanted[2:]) == 1:
                continue
            if all(2 * before >= 3 * later for before, later in zip(got[2:], wanted[2:], strict=True)):
                self.stand_behind(i, found, left)
        return tuple(found), tuple(left)

    def global_pool(self) -> Places:
        maps = [i for i in self.visible if math.prod(self.calls[i].pixels) > 1]
        pools = self.innermost("collapses")
        if pools and not any(i > pools[-1] for i in maps) and self.times[self.calls[pools[-1]].name] == 1:
            return Places((self.in_front(pools[-1]),), ())
        last = max((i for i in self.visible if _returns_map(self.calls[i])), default=0)
        found: list[Place] = []
        left: list[tuple[str, str]] = []
        if last > 0 and not _returns_map(self.calls[0]):
            following = self.after(last)
            shape = self.calls[0].output_shape if following == len(self.calls) else self.calls[following].input_shape
            if shape[:2] == self.calls[last].output_shape[:2] and shape[2:] in ((), (1, 1)):
                self.stand_behind(last, found, left)
        return Places(tuple(found), tuple(left))

    def stand_behind(self, i: int, found: list[Place], left: list[tuple[str, str]]) -> None:
        """A spot behind a call, or behind the largest module that ends with it; not behind one of several calls."""
        ends = [i, *(outer for outer in reversed(self.around[i]) if outer > 0 and self.after(outer) == self.after(i))]
        name, shape = self.calls[i].name, self.calls[i].output_shape
        for end in reversed(ends):
            if self.times[self.calls[end].name] == 1 and self.calls[end].output_shape == shape:
                found.append(Place(self.calls[end].name, behind=True, channels=shape[1]))
                return
        left.append((name, SHARED.format(name=name, count=self.times[name])))

    def after(self, i: int) -> int:
        """The first call that began when this one had ended, or the number of calls."""
        later = (j for j in range(i + 1, len(self.calls)) if self.calls[j].depth <= self.calls[i].depth)
        return next(later, len(self.calls))

    def is_leaf(self, i: int) -> bool:
        """Whether no visible call is inside."""
        return not any(i in self.around[j] for j in self.visible)


def _convolves(call: Call) -> bool:
    if isinstance(call.module, Membered):  # those that hold their weights themselves
        return bool(call.pixels) and (call.subsamples or call.input_shape[1] != call.output_shape[1])
    return isinstance(call.module, CONVOLUTIONS) and call.input_shape[2:] != (1, 1)


def _returns_map(call: Call) -> bool:
    return len(call.output_shape) == 4 and math.prod(call.output_shape[2:]) > 1
