"""Values from a list: schedules, sizes, whole parts of a recipe."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class OneOf:
    """One of `options`, each as likely as another, written at `path` of a recipe.

    path     such as "sampler.schedule" or "backbone"; several, with commas between, get the same value.
    options  plain values, or parts. Raises ValueError where there are none.
    """

    path: str = "sampler.batch_size"
    options: tuple[Any, ...] = (64, 128, 256)

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"OneOf: options wants a tuple of at least one value, got {self.options!r}")

    def draw(self, generator: torch.Generator) -> Any:
        """One value."""
        return self.options[int(torch.randint(len(self.options), (), generator=generator))]
