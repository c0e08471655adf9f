"""A module with something in front of it or behind it: how a surgery adds a layer to a network it did not write."""

from typing import Any

from torch import Tensor, nn


class Around(nn.Module):
    """after(module(before(x), ...)); the module itself stays as it is.

    Reads like the module: attributes that it does not have are the module's, for parents that look at their children
    (`self.conv.stride`, `self.embedding.weight.dtype`).
    """

    def __init__(self, module: nn.Module, *, before: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.before = nn.Identity() if before is None else before
        self.module = module
        self.after = nn.Identity() if after is None else after

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Other arguments go to the module alone."""
        out: Tensor = self.after(self.module(self.before(x), *args, **kwargs))
        return out

    def __getattr__(self, name: str) -> Any:
        """What is not here is looked for in the module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)
