"""Dropout that draws when a network is asked for samples, not only while it trains."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from levelhead.declared import Stochastic

FUNCTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Dropout: F.dropout,
    nn.Dropout1d: F.dropout1d,
    nn.Dropout2d: F.dropout2d,
    nn.Dropout3d: F.dropout3d,
    nn.AlphaDropout: F.alpha_dropout,
    nn.FeatureAlphaDropout: F.feature_alpha_dropout,
}
CALLS = frozenset(FUNCTIONS.values())


class Dropout(Stochastic):
    """x * mask / (1 - p), each value of the mask 0 with probability p; x itself when it does not draw.

    p             rate, in [0, 1).
    channel_axis  None: a mask value for every element. Otherwise one for every example and channel along this axis.
    """

    def __init__(self, p: float, *, channel_axis: int | None = None) -> None:
        super().__init__()
        self.p = checked_rate(p, "Dropout")
        self.channel_axis = channel_axis

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Masked and rescaled, so that the mean stays."""
        if not self.drawing or self.p == 0:
            return x
        if self.channel_axis is None:
            return F.dropout(x, self.p, training=True)
        shape = [1] * x.ndim
        shape[0], shape[self.channel_axis] = x.shape[0], x.shape[self.channel_axis]
        return x * F.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.p, training=True)

    def extra_repr(self) -> str:
        """Rate and granularity."""
        return f"p={self.p}" if self.channel_axis is None else f"p={self.p}, channel_axis={self.channel_axis}"


class DropoutAs(Stochastic):
    """A dropout module of torch, any kind, with its own or another rate."""

    def __init__(self, module: nn.Module, p: float) -> None:
        super().__init__()
        self.p = checked_rate(p, "DropoutAs")
        self.function = function_of(module)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """What the module's function makes of x."""
        return self.function(x, self.p, training=True) if self.drawing else x

    def extra_repr(self) -> str:
        """Function and rate."""
        return f"{self.function.__name__}, p={self.p}"


class FunctionalDropout(Stochastic):
    """A module in whose code dropout is a function: these calls draw when this layer does, and only then.

    rate  in place of the calls' own, where given. A call with rate 0 stays without effect.
    """

    def __init__(self, module: nn.Module, rate: float | None = None) -> None:
        super().__init__()
        self.rate = None if rate is None else checked_rate(rate, "FunctionalDropout")
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        with _Dropouts(self.drawing, self.rate):
            return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What is not here is the module's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class _Dropouts(TorchFunctionMode):
    """Decides for every functional dropout whether it draws, and at which rate."""

    def __init__(self, drawing: bool, rate: float | None) -> None:
        super().__init__()
        self.drawing = drawing
        self.rate = rate

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in CALLS:
            return func(*args, **kwargs)
        return self.dropped(func, *args, **kwargs)

    def dropped(self, func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """The call with our decisions; never in place, since a deterministic prefix may be shared."""
        rate = p if self.rate is None or p == 0 else self.rate
        return func(input, rate, training=self.drawing and rate > 0)


def function_of(module: nn.Module) -> Callable[..., Tensor]:
    """The function that a dropout module calls. Raises TypeError for other modules."""
    for kind, function in FUNCTIONS.items():
        if isinstance(module, kind):
            return function
    raise TypeError(f"wants a dropout module of torch, got {type(module).__name__}")


def is_dropout(module: nn.Module) -> bool:
    """Whether the module is one of torch's dropouts."""
    return isinstance(module, _DropoutNd) and isinstance(module, tuple(FUNCTIONS))


def checked_rate(p: float, asker: str) -> float:
    """The rate. Raises ValueError outside [0, 1)."""
    if not 0 <= p < 1:
        raise ValueError(f"{asker}: p must be in [0, 1), got {p}")
    return p
