"""The stages of a convolutional network that somebody else may have written: runs of blocks with maps of one shape."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from levelhead.layers.places import blocks, convolutions
from levelhead.probe import Call, Trace


class Unit(NamedTuple):
    """A residual block, or in a plain network a convolution.

    channels, out  of the maps before and behind it.
    width          of the narrowest convolution inside: what a bottleneck narrows to.
    size           height and width of the map behind it.
    keeps          whether the map behind it has the shape of the one before.
    """

    name: str
    module: nn.Module
    channels: int
    out: int
    width: int
    size: tuple[int, int]
    keeps: bool


def stages(trace: Trace) -> tuple[tuple[Unit, ...], ...]:
    """Units in the order in which they run, a stage for every run of them that returns maps of one shape.

    Units are the residual blocks; where there are none, the convolutions wider than 1 x 1 behind the first one. A
    module that runs twice is one unit.
    """
    around = trace.around()
    convolving = convolutions(trace)
    places: Sequence[int] = blocks(trace)
    if not places:
        places = [i for i in convolving[1:] if max(getattr(trace.calls[i].module, "kernel_size", (1,))) > 1]
    found: list[list[Unit]] = []
    known: set[str] = set()
    for place in sorted(places):
        call = trace.calls[place]
        if call.name in known or not len(call.input_shape) == len(call.output_shape) == 4:
            continue
        known.add(call.name)
        inside = [trace.calls[i] for i in convolving if i == place or place in around[i]]
        unit = _unit(call, inside)
        if found and (found[-1][-1].out, found[-1][-1].size) == (unit.out, unit.size):
            found[-1].append(unit)
        else:
            found.append([unit])
    return tuple(tuple(stage) for stage in found)


def room(stage: Sequence[Unit]) -> int:
    """How many units of a stage can be replaced, every other one from its end: half of them, rounded down.

    A stage's first unit stays, unless it stands alone and keeps the map's shape.
    """
    if not stage[-1].keeps:
        return 0
    return max(1, len(stage) // 2)


def tail(stage: Sequence[Unit], count: int) -> tuple[Unit, ...]:
    """The last unit, the third last, ...: `count` of them, at most `room`."""
    return tuple(reversed(stage))[: 2 * count : 2]


def _unit(call: Call, inside: Sequence[Call]) -> Unit:
    before, after = call.input_shape, call.output_shape
    width = min((inner.output_shape[1] for inner in inside), default=after[1])
    return Unit(call.name, call.module, before[1], after[1], width, (after[2], after[3]), before == after)
