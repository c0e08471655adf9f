"""Norms, in one place: the set of allowed inputs, the way into it, the steepest step and where a search starts."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from levelhead.attacks._streams import Streams

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Ball:
    """{x' : |x' - x| <= eps, x' within bounds}, |.| the largest coordinate or the Euclidean length of a row."""

    eps: float
    norm: Norm
    bounds: tuple[float, float]

    def check(self, name: str) -> Self:
        """Itself, or ValueError for settings that mean nothing."""
        if not self.eps >= 0:
            raise ValueError(f"{name}: eps must not be negative, got {self.eps}")
        check_norm(name, self.norm)
        check_bounds(name, self.bounds)
        return self

    def project(
        self, moved: Float[Tensor, "row *input"], x: Float[Tensor, "row *input"]
    ) -> Float[Tensor, "row *input"]:
        """The nearest allowed point for linf; for l2 back onto the ball, then into the bounds, which stays inside."""
        if self.norm == "linf":
            return torch.clamp(torch.clamp(moved, x - self.eps, x + self.eps), *self.bounds)
        change = moved - x
        shrink = (self.eps / length(change, "l2").clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1.0)
        return torch.clamp(x + along(shrink, x) * change, *self.bounds)

    def start(
        self, x: Float[Tensor, "row *input"], streams: Streams, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "row *input"]:
        """Uniform in the ball around x, then into the bounds."""
        if self.norm == "linf":
            return self.project(x + self.eps * (2 * streams.uniform(rows, like=x) - 1), x)
        direction = unit(streams.normal(rows, like=x), "l2")
        radius = streams.uniform(rows, like=x.new_empty(len(x), 1))[:, 0] ** (1 / x[0].numel())
        return self.project(x + self.eps * along(radius, x) * direction, x)

    def edge(
        self, x: Float[Tensor, "row *input"], streams: Streams, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "row *input"]:
        """On the surface of the ball around x, then into the bounds: noise stretched to length eps."""
        noise = 2 * streams.uniform(rows, like=x) - 1 if self.norm == "linf" else streams.normal(rows, like=x)
        return self.project(x + self.eps * unit(noise, self.norm), x)

    def steepest(self, gradient: Float[Tensor, "row *input"]) -> Float[Tensor, "row *input"]:
        """The step of length one along which a linear function rises most: signs, or the unit vector.

        Zero where the gradient is zero; entries that are not numbers count as zero.
        """
        gradient = torch.nan_to_num(gradient)
        return gradient.sign() if self.norm == "linf" else unit(gradient, "l2")


def length(change: Float[Tensor, "row *input"], norm: Norm) -> Float[Tensor, " row"]:
    """|change| of each row."""
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


def unit(change: Float[Tensor, "row *input"], norm: Norm) -> Float[Tensor, "row *input"]:
    """Each row stretched to length one; zero rows stay. Tiny rows too: their squares alone would underflow."""
    tiny = torch.finfo(change.dtype).tiny
    change = change / along(length(change, "linf").clamp_min(tiny), change)
    return change if norm == "linf" else change / along(length(change, "l2").clamp_min(tiny), change)


def along(values: Shaped[Tensor, " row"], like: Float[Tensor, "row *input"]) -> Shaped[Tensor, "row *one"]:
    """A value a row, shaped to multiply the rows of `like`."""
    return rearrange(values, f"row -> row {'1 ' * (like.ndim - 1)}")


def check_norm(name: str, norm: str) -> None:
    """ValueError for a norm that there is not."""
    if norm not in get_args(Norm):
        raise ValueError(f"{name}: norm must be 'linf' or 'l2', got {norm!r}")


def check_bounds(name: str, bounds: tuple[float, float]) -> None:
    """ValueError for bounds that hold nothing."""
    if not bounds[0] < bounds[1]:
        raise ValueError(f"{name}: bounds wants a lower and a higher number, got {bounds}")
