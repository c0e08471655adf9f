"""Every step over pixels that a network takes: strided convolutions, shortcuts included, and strided pools.

They are found by running an example (`network.trace()`), with what it takes to put a filter and a dense layer there
instead. Step i of a layer with kernel k, stride s, padding p and dilation d is centred at pixel s i + phase,
phase = d (k - 1) / 2 - p, and there are ceil((H + margin) / s) of them, margin = 2 p - d (k - 1): 0 where the padding
keeps the size at stride 1.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from levelhead.declared import Membered
from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.places import CONVOLUTIONS, before_subsampling
from levelhead.network import Network
from levelhead.probe import Call, Trace, evaluating

Pair = tuple[int, int]

POOLS: dict[type[nn.Module], str] = {nn.MaxPool2d: "max", nn.AvgPool2d: "average"}
MEMBERS = (FastWeights, ConditionalWeights)  # one convolution, or two alike, and vectors a channel: filters commute
SMALL = 3  # windows up to this are steps, however few pixels there are
UNKNOWN = "a {kind} steps over pixels in a way of its own: replace it by a strided convolution or a pool"
FUNCTIONAL = "behind it a function steps over pixels, not a module: use nn.MaxPool2d, nn.AvgPool2d or a convolution"
NOT_DENSE = "a {kind} does not run at stride 1 ({error}): put this surgery before the one that made it"
OTHER_SIZE = "a {kind} returns a map of a size that its stride and padding do not explain: use a plain convolution"
MEMBERED = "a {kind} has members' weights of its own: put this surgery before the one that made it"


class LowPass(nn.Module):
    """A layer that filters before it steps over pixels: the walk leaves it alone, with all that is inside."""


class Step(NamedTuple):
    """One module that steps over pixels."""

    name: str
    kind: str  # "convolution", "max" or "average"
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil: bool  # pools alone: the last window may hang over the edge
    margin: Pair  # it takes ceil((size + margin) / stride) steps
    dense: Pair  # pixels that it would return more than it reads, were its stride 1
    channels: int  # that come in
    pixels: Pair  # that come in, in the example
    reads_image: bool  # no convolution stands before it
    ends_stem: bool  # a pool right behind a strided first convolution, as ImageNet networks have it
    source: int  # see `Call`: steps of one number read one tensor

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution."""
        return self.kind == "convolution"

    @property
    def phase(self) -> tuple[float, float]:
        """The pixel, from 0, at which its first step is centred."""
        down, right = (d * (k - 1) / 2 - p for k, p, d in zip(self.kernel, self.padding, self.dilation, strict=True))
        return down, right

    @property
    def is_patches(self) -> bool:
        """Whether it is a convolution of windows that neither overlap nor are just four pixels: a patch embedding."""
        return self.convolves and self.kernel == self.stride and max(self.stride) > 2


class Steps(NamedTuple):
    """The steps in order of execution, and those that had to be left, with the reason."""

    found: tuple[Step, ...]
    left: tuple[tuple[str, str], ...]


def steps_over_pixels(trace: Trace) -> Steps:
    """Every module that steps over pixels and can be made dense; a module that is called twice is one step.

    Layers with members' vectors (BatchEnsemble, self-tuning) are taken whole. A pool of all pixels is no step.
    """
    around = trace.around()
    calls = trace.calls
    whole = {i for i, call in enumerate(calls) if isinstance(call.module, (*MEMBERS, LowPass))}
    visible = [i for i in range(len(calls)) if not any(outer in whole for outer in around[i])]
    reducing = [i for i in visible if calls[i].subsamples or calls[i].collapses]
    outer = {other for i in reducing for other in around[i]}
    stepping = [i for i in reducing if calls[i].subsamples and not is_global(calls[i]) and i not in outer]
    between = before_subsampling(trace)
    functional = {place.name for place in between.found if place.behind} | {name for name, _ in between.left}
    first = convolving(trace)
    found: dict[str, Step] = {}
    left: dict[str, str] = {}
    for i in stepping:
        call = calls[i]
        if isinstance(call.module, LowPass) or any(name.startswith(f"{call.name}.") for name in functional):
            continue
        before = [c for c in first if c < i]
        ends_stem = len(before) == 1 and calls[before[0]].subsamples
        step = read(call, reads_image=not before, ends_stem=ends_stem)
        if isinstance(step, str):
            left[call.name] = step
        else:
            found.setdefault(call.name, step)
    left |= dict.fromkeys(sorted(functional - set(found)), FUNCTIONAL) | dict(between.left)
    return Steps(tuple(found.values()), tuple(left.items()))


def is_global(call: Call) -> bool:
    """Whether a call pools all pixels: not where a small window happens to hold all that are left."""
    window = getattr(call.module, "kernel_size", SMALL + 1)
    small = isinstance(call.module, (nn.Conv2d, *POOLS, *MEMBERS)) and max(pair(window)) <= SMALL
    return call.collapses and not small


def convolving(trace: Trace) -> list[int]:
    """The calls that convolve more than one pixel."""
    kinds = (*CONVOLUTIONS, *MEMBERS)
    around = trace.around()
    found = [i for i, call in enumerate(trace.calls) if isinstance(call.module, kinds) and len(call.pixels) == 2]
    inside = {i for i in found if any(isinstance(trace.calls[o].module, MEMBERS) for o in around[i])}
    return [i for i in found if i not in inside and trace.calls[i].pixels != (1, 1)]


def read(call: Call, *, reads_image: bool, ends_stem: bool) -> Step | str:
    """The step that a call takes, or why it must be left."""
    module = call.module
    kind = type(module).__name__
    inner: Any = module.module if isinstance(module, MEMBERS) else module
    pool = next((name for kind_of, name in POOLS.items() if isinstance(inner, kind_of)), "")
    if isinstance(module, Membered) and not isinstance(module, MEMBERS):
        return MEMBERED.format(kind=kind)
    if not isinstance(inner, nn.Conv2d) and not pool:
        return UNKNOWN.format(kind=kind)
    kernel, stride = pair(inner.kernel_size), pair(inner.stride)
    dilation = pair(getattr(inner, "dilation", 1))
    padding = (0, 0) if isinstance(inner.padding, str) else pair(inner.padding)
    ceil = bool(getattr(inner, "ceil_mode", False))
    margin = tuple(2 * p - d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))
    if ceil:
        margin = tuple(m + s - 1 for m, s in zip(margin, stride, strict=True))
    sizes = pair(call.pixels)
    got = pair(call.output_shape[2:])
    if steps_of(sizes, margin, stride) != got:  # it pads by itself, or drops a last window that only sees padding
        if steps_of(sizes, (0, 0), stride) != got:
            return OTHER_SIZE.format(kind=kind)
        margin = (0, 0)
    dense = tuple(2 * p - d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))
    if type(inner) not in (nn.Conv2d, *POOLS):
        tried = dense_size(inner, call)
        if isinstance(tried, str):
            return NOT_DENSE.format(kind=kind, error=tried)
        dense = tuple(one - size for one, size in zip(tried, sizes, strict=True))
    return Step(
        call.name,
        pool or "convolution",
        kernel,
        stride,
        padding,
        dilation,
        ceil,
        pair(margin),
        pair(dense),
        call.input_shape[1],
        sizes,
        reads_image=reads_image,
        ends_stem=bool(pool) and ends_stem,
        source=call.source,
    )


def dense_size(layer: nn.Module, call: Call) -> tuple[int, ...] | str:
    """Height and width that a subclass of torch's layers returns at stride 1; or what it said."""
    dense = make_dense(copy.deepcopy(layer))
    like = next(iter(layer.parameters()), torch.empty(0))
    try:
        with evaluating(dense), torch.no_grad():
            return tuple(dense(like.new_zeros(call.input_shape)).shape[2:])
    except RuntimeError as error:
        return str(error).partition("\n")[0]


def make_dense(layer: nn.Module) -> nn.Module:
    """The layer at stride 1, changed in place: the weights of a convolution or pool, or of a layer with members."""
    for module in layer.modules():
        if isinstance(module, (nn.Conv2d, *POOLS)):
            module.stride = (1, 1)  # type: ignore[assignment]
            if isinstance(module, tuple(POOLS)):
                module.ceil_mode = False  # type: ignore[assignment]
    return layer


def steps_of(sizes: tuple[int, ...], margin: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """ceil((size + margin) / stride), per axis."""
    return tuple(-(-(size + m) // s) for size, m, s in zip(sizes, margin, stride, strict=True))


def pair(value: int | tuple[int, ...]) -> Pair:
    """A number for both axes, or one for each."""
    if isinstance(value, int):
        return value, value
    return value[0], value[-1]


def exchanged(
    network: Network,
    makers: Mapping[str, Callable[[nn.Module], nn.Module]],
    *,
    author: str,
    skipped: tuple[tuple[str, str], ...] = (),
) -> Network:
    """The network with some modules exchanged, by name: `makers[name](module)` stands there instead."""
    names: dict[nn.Module, str] = {}

    def match(name: str, module: nn.Module) -> bool:
        names[module] = name
        return name in makers

    def make(module: nn.Module) -> nn.Module:
        return makers[names[module]](module)

    return network.replace(match, make, inside=True, author=author, skipped=skipped)
