"""Finding the layers of a network by running one example, so that surgery works on networks we did not write."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """One call of one module: where it is, what came in and what went out, in order of execution."""

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    depth: int  # number of calls around this one
    source: int = 0  # which tensor came in: calls that read one and the same tensor share the number; 0 for none
    result: int = 0  # which tensor went out, by the same numbers

    @property
    def is_leaf(self) -> bool:
        """Whether the module has no children."""
        return not any(True for _ in self.module.children())

    @property
    def pixels(self) -> tuple[int, ...]:
        """Height and width of what came in, or () where it is no map (batch, channel, height, width)."""
        return self.input_shape[2:] if len(self.input_shape) == 4 else ()

    @property
    def subsamples(self) -> bool:
        """Whether it steps over pixels: by its stride, or where it names none, by a map smaller in both directions.

        A convolution without padding also returns fewer pixels, but it skips none; a third fewer is the line.
        """
        after = self.output_shape[2:]
        if not self.pixels or len(self.output_shape) != 4 or self.output_shape[2:] == self.pixels:
            return False
        stride = getattr(self.module, "stride", None)
        if isinstance(stride, int | tuple):
            return max((stride,) if isinstance(stride, int) else stride) > 1 and math.prod(after) < math.prod(
                self.pixels
            )
        return all(2 * before >= 3 * got for before, got in zip(self.pixels, after, strict=True))

    @property
    def collapses(self) -> bool:
        """Whether it turns a map into one number a channel, as a global pooling does."""
        shape = self.output_shape
        ends = shape[2:] in ((), (1, 1)) and shape[:2] == self.input_shape[:2]
        return math.prod(self.pixels) > 1 and len(shape) >= 2 and ends


class Trace(NamedTuple):
    """What one run of a module saw."""

    calls: tuple[Call, ...]
    functional_dropout: tuple[float, ...]  # rates of dropouts called as functions (not modules), in training
    droppers: tuple[str, ...] = ()  # names of the modules whose own code called them

    def of(self, *types: type[nn.Module]) -> tuple[Call, ...]:
        """The calls of modules of some types."""
        return tuple(call for call in self.calls if isinstance(call.module, types))

    def around(self) -> tuple[tuple[int, ...], ...]:
        """For each call the places, in `calls`, of the calls around it, from the outside in."""
        found: list[tuple[int, ...]] = []
        open_calls: list[int] = []
        for place, call in enumerate(self.calls):
            del open_calls[call.depth :]
            found.append(tuple(open_calls))
            open_calls.append(place)
        return tuple(found)


class DropoutCalls(TorchFunctionMode):
    """Records functional dropouts: the rate, and the module that was running. Dropout modules are not counted."""

    FUNCTIONS = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout})

    def __init__(self) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.rates: list[float] = []
        self.callers: list[nn.Module] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.FUNCTIONS and self.running and not isinstance(self.running[-1], nn.modules.dropout._DropoutNd):
            rate = float(args[1] if len(args) > 1 else kwargs.get("p", 0.5))
            if rate > 0:
                self.rates.append(rate)
                self.callers.append(self.running[-1])
        return func(*args, **kwargs)


def trace(module: nn.Module, x: Tensor) -> Trace:
    """Run `module` on `x` in evaluation mode, without gradient, and write down every call of a submodule.

    Dropout modules are not counted as functional dropout. The module is left as it was found: mode and buffers too.
    """
    names: dict[nn.Module, str] = {}
    for name, child in module.named_modules():
        names.setdefault(child, name)
    entered: list[int] = []
    finished: dict[int, Call] = {}
    tensors: dict[int, Tensor] = {}  # kept alive, so that no two of them share an identity
    mode = DropoutCalls()

    def before(child: nn.Module, args: tuple[Any, ...]) -> None:
        entered.append(len(finished) + len(entered))
        mode.running.append(child)

    def after(child: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        order = entered.pop()
        mode.running.pop()
        inside = next((a for a in args if isinstance(a, Tensor)), None)
        shape_in, source = ((), 0) if inside is None else (tuple(inside.shape), id(inside))
        if inside is not None:
            tensors[source] = inside
        shape_out, result = (tuple(output.shape), id(output)) if isinstance(output, Tensor) else ((), 0)
        if result:
            tensors[result] = output
        finished[order] = Call(names[child], child, shape_in, shape_out, len(entered), source, result)

    hooks = []
    for child in names:
        hooks += [child.register_forward_pre_hook(before), child.register_forward_hook(after)]
    try:
        with evaluating(module), torch.no_grad(), mode:
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    calls = tuple(finished[order] for order in sorted(finished))
    return Trace(calls, tuple(mode.rates), tuple(names[caller] for caller in mode.callers))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule gets its own mode back."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode
