"""The blocks that a network is made of, as papers count them, from one run of it."""

from collections.abc import Iterator

from levelhead.declared import Membered
from levelhead.probe import Call, Trace

MOST_SIZES = 2  # a stage reads maps of the size it was given and, behind its first step, of half of it


def block_of_each_call(trace: Trace) -> tuple[int, ...]:
    """The block, from 0, in which each call of the trace is.

    A block is a part of the network that convolves: the stem, then each stage of a ResNet. Single layers in a row are
    one block up to the next pool, which ends it: the five of a VGG, and the stem of a torchvision ResNet. What does not
    convolve belongs to the block before it. A part that convolves alone, or maps of more than two sizes, is no block:
    its own parts are.
    """
    tree = _Convolving(trace)
    block, row_goes_on = -1, False
    first_calls: dict[int, int] = {}
    for i in tree.parts(0):
        call = trace.calls[i]
        if i in tree.convolving:
            block += not row_goes_on or not call.is_leaf
            row_goes_on = call.is_leaf
        elif call.subsamples:
            row_goes_on = False
        first_calls[i] = max(block, 0)
    blocks, now = [], 0
    for i in range(len(trace.calls)):
        now = first_calls.get(i, now)
        blocks.append(now)
    return tuple(blocks)


class _Convolving:
    """A trace with the calls that convolve, and those around them."""

    def __init__(self, trace: Trace) -> None:
        self.calls = trace.calls
        self.around = trace.around()
        self.layers = [i for i, call in enumerate(self.calls) if _convolves(call)]
        self.convolving = {other for i in self.layers for other in (i, *self.around[i])}

    def parts(self, level: int) -> Iterator[int]:
        """The calls that a call is made of, in order, larger ones taken apart."""
        children = [i for i, around in enumerate(self.around) if around and around[-1] == level]
        several = sum(i in self.convolving for i in children) > 1
        for i in children:
            sizes = {self.calls[j].pixels for j in self.layers if i in self.around[j]} - {(1, 1)}
            stage = several and len(sizes) <= MOST_SIZES
            if i in self.convolving and not self.calls[i].is_leaf and not stage:
                yield from self.parts(i)
            else:
                yield i


def _convolves(call: Call) -> bool:
    """A map comes in, and there are kernels: in a layer, or anywhere in one of members."""
    own = call.module.parameters(recurse=isinstance(call.module, Membered))
    return len(call.pixels) == 2 and any(parameter.ndim >= 4 for parameter in own)
