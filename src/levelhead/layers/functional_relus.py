"""Where a network calls ReLU as a function: no module that a surgery could exchange."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FUNCTIONS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


class _ReLUCalls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.callers: dict[nn.Module, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        on_map = bool(args) and isinstance(args[0], Tensor) and args[0].ndim == 4
        if func in FUNCTIONS and on_map and self.running and not isinstance(self.running[-1], nn.ReLU):
            self.callers[self.running[-1]] = None
        return func(*args, **(kwargs or {}))


def functional_relus(module: nn.Module, run: Callable[[], object]) -> tuple[nn.Module, ...]:
    """The modules below `module` whose own code calls ReLU on a map while `run` runs it, in order."""
    mode = _ReLUCalls()

    def before(child: nn.Module, args: tuple[Any, ...]) -> None:
        mode.running.append(child)

    def after(child: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        mode.running.pop()

    hooks = []
    for child in module.modules():
        hooks += [child.register_forward_pre_hook(before), child.register_forward_hook(after)]
    try:
        with mode:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(mode.callers)
