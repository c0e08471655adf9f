"""Finding the layers of a network by running one example, so that surgery works on networks we did not write."""

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

    @property
    def is_leaf(self) -> bool:
        """Whether the module has no children."""
        return not any(True for _ in self.module.children())

    @property
    def subsamples(self) -> bool:
        """Whether pixels (the axes after the second) went down, to more than one."""
        before, after = self.input_shape[2:], self.output_shape[2:]
        return len(before) == len(after) > 0 and any(a < b for a, b in zip(after, before, strict=True))


class Trace(NamedTuple):
    """What one run of a module saw."""

    calls: tuple[Call, ...]
    functional_dropout: tuple[float, ...]  # rates of dropouts called as functions (not modules), in training

    def of(self, *types: type[nn.Module]) -> tuple[Call, ...]:
        """The calls of modules of some types."""
        return tuple(call for call in self.calls if isinstance(call.module, types))


class DropoutCalls(TorchFunctionMode):
    """Records the rates of functional dropout."""

    FUNCTIONS = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout})

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.FUNCTIONS:
            rate = float(args[1] if len(args) > 1 else kwargs.get("p", 0.5))
            if rate > 0:
                self.rates.append(rate)
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
    mode = DropoutCalls()

    def before(child: nn.Module, args: tuple[Any, ...]) -> None:
        entered.append(len(finished) + len(entered))

    def after(child: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        order = entered.pop()
        inside = next((a for a in args if isinstance(a, Tensor)), None)
        shape_in = () if inside is None else tuple(inside.shape)
        shape_out = tuple(output.shape) if isinstance(output, Tensor) else ()
        finished[order] = Call(names[child], child, shape_in, shape_out, len(entered))
        if isinstance(child, nn.modules.dropout._DropoutNd) and child.p > 0:
            mode.rates.pop()

    hooks = []
    for child in names:
        hooks += [child.register_forward_pre_hook(before), child.register_forward_hook(after)]
    try:
        with evaluating(module), torch.no_grad(), mode:
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return Trace(tuple(finished[order] for order in sorted(finished)), tuple(mode.rates))


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
