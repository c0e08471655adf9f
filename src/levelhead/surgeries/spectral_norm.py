"""Spectral normalisation: no linear layer of the features stretches its input by more than a bound."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.network import Network
from levelhead.types import Reference

NORMS = ("operator", "reshaped")
FIRST_STEPS = 5  # power iterations when a layer is made, so that the bound already acts on pretrained weights
SKIPPED = "{kind} computes its output in a way of its own, so scaling its weight may not scale its map"


@dataclass(frozen=True)
class SpectralNorm:
    """W <- W min(1, norm_bound / sigma(W)) in every linear layer and convolution of the features: a soft bound.

    Power iteration on u and v estimates sigma = u' W v from below: v <- W'u / |W'u|, u <- W v / |W v|, `power_steps`
    times in each training pass. Prediction and side passes leave u and v alone. The gradient goes through sigma.

    norm_bound  largest allowed sigma (c of the paper), of each layer alone: a BatchNorm behind it can undo it.
    norm        "operator": of the convolution as a linear map, for the input size that one example has there.
                "reshaped": of the kernel as a matrix (out, in * taps), smaller by up to sqrt(taps); c = 6 in the
                operator norm is about c = 4 in this one. They agree for linear layers and 1x1 kernels.

    Weights with sigma <= norm_bound stay as they are, to the bit. The head is left alone.
    Raises NoLayerReplaced where the features hold no linear layer or convolution.

    Liu et al., arXiv 2205.00403; the operator norm of convolutions after Gouk et al., arXiv 1804.04368.
    """

    reference: ClassVar = Reference(
        "Liu et al.",
        2022,
        arxiv="2205.00403",
        title="A Simple Approach to Improve Single-Model Deep Uncertainty via Distance-Awareness",
    )
    norm_bound: float = 6.0
    power_steps: int = 1
    norm: str = "operator"

    def __post_init__(self) -> None:
        if not self.norm_bound > 0:
            raise ValueError(f"SpectralNorm: norm_bound must be positive, got {self.norm_bound}")
        if self.power_steps < 1:
            raise ValueError(f"SpectralNorm: power_steps must be at least 1, got {self.power_steps}")
        if self.norm not in NORMS:
            raise ValueError(f"SpectralNorm: norm must be 'operator' or 'reshaped', got {self.norm!r}")

    def __call__(self, network: Network) -> Network:
        """The network with bounded layers; places and sizes are found by running one example."""
        shapes: dict[str, tuple[int, ...]] = {}
        skipped: list[tuple[str, str]] = []
        for call in network.trace().of(*BOUNDED):
            if bounded_class(call.module) is None:
                skipped.append((call.name, SKIPPED.format(kind=type(call.module).__name__)))
            else:
                shapes.setdefault(call.name, call.input_shape)
        found: dict[nn.Module, tuple[int, ...]] = {}

        def match(name: str, module: nn.Module) -> bool:
            if name in shapes:
                found[module] = shapes[name]
            return name in shapes

        def make(module: nn.Module) -> nn.Module:
            return bound(module, found[module], norm_bound=self.norm_bound, steps=self.power_steps, norm=self.norm)

        return network.replace(match, make, author="SpectralNorm", skipped=tuple(skipped))


class Bounded(nn.Module):
    """A linear layer or convolution whose weight is scaled down to a spectral bound before each use.

    v  (1, *input): the direction that is stretched most, so far.    u  (1, *output): where it goes.
    They are replaced, never written to, and only while training with track_running_stats on.
    """

    weight: Tensor
    bias: Any
    u: Float[Tensor, "1 *output"]
    v: Float[Tensor, "1 *input"]
    norm_bound: float
    power_steps: int
    reshaped: bool
    track_running_stats: bool = True

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own map with another weight."""
        raise TypeError(f"{type(self).__name__} must define apply_weight")

    def forward(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch *output"]:
        """The layer's output under the bounded weight."""
        if self.training and self.track_running_stats:
            self.iterate(self.power_steps)
        return self.apply_weight(x, self.bounded_weight(), self.bias)

    def bounded_weight(self) -> Tensor:
        """W min(1, norm_bound / sigma), with the gradient through sigma at fixed u and v."""
        with torch.autocast(self.weight.device.type, enabled=False):
            sigma = self.sigma().clamp_min(torch.finfo(self.weight.dtype).tiny)  # W = 0 is within every bound
            return self.weight * (self.norm_bound / sigma).clamp_max(1.0)

    def sigma(self) -> Float[Tensor, ""]:
        """The current estimate u' W v of the spectral norm; never above it."""
        return (self.u * self.stretch(self.v, self.weight)).sum()

    def stretch(self, v: Tensor, weight: Tensor) -> Tensor:
        """W v."""
        return (
            F.linear(v, rearrange(weight, "o ... -> o (...)")) if self.reshaped else self.apply_weight(v, weight, None)
        )

    @torch.no_grad()
    def iterate(self, steps: int) -> None:
        """Power iteration. W' is the gradient of u' W v in v: exact for any stride, padding, dilation and groups."""
        weight = self.weight.detach()
        u, v = self.u, self.v
        with torch.autocast(weight.device.type, enabled=False):
            for _ in range(steps):
                v = unit(self.pulled_back(u, v, weight))
                u = unit(self.stretch(v, weight))
        self.u, self.v = u, v

    def pulled_back(self, u: Tensor, at: Tensor, weight: Tensor) -> Tensor:
        """W' u, the gradient of u' W v in v, which is the same at any v."""
        if torch.compiler.is_compiling():  # the compiler follows this form alone, which takes twice as long elsewhere
            return torch.func.vjp(lambda v: self.stretch(v, weight), at)[1](u)[0]
        with torch.enable_grad():
            point = at.detach().requires_grad_(True)
            return torch.autograd.grad(self.stretch(point, weight), point, u)[0]

    def extra_repr(self) -> str:
        """The layer's own numbers and the bound."""
        return f"{super().extra_repr()}, norm_bound={self.norm_bound}"


class BoundedLinear(Bounded, nn.Linear):
    """See `Bounded`."""

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W' + b."""
        return F.linear(x, weight, bias)


class _BoundedConv(Bounded):
    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)  # type: ignore[operator]


class BoundedConv1d(_BoundedConv, nn.Conv1d):
    """See `Bounded`."""


class BoundedConv2d(_BoundedConv, nn.Conv2d):
    """See `Bounded`."""


class BoundedConv3d(_BoundedConv, nn.Conv3d):
    """See `Bounded`."""


BOUNDED: dict[type[nn.Module], type[Bounded]] = {
    nn.Linear: BoundedLinear,
    nn.Conv1d: BoundedConv1d,
    nn.Conv2d: BoundedConv2d,
    nn.Conv3d: BoundedConv3d,
}


def bounded_class(module: nn.Module) -> type[Bounded] | None:
    """The bounded class of a layer, bounded before or not; None for subclasses, which have a forward of their own."""
    return type(module) if type(module) in BOUNDED.values() else BOUNDED.get(type(module))  # type: ignore[return-value]


def bound(layer: nn.Module, input_shape: tuple[int, ...], *, norm_bound: float, steps: int, norm: str) -> nn.Module:
    """The layer, bounded. Its class is exchanged in place, so that weights, ties, hooks and flags stay what they are.

    input_shape  (batch, *input) of what arrives there.
    """
    cls = bounded_class(layer)
    assert cls is not None, f"{type(layer).__name__} was matched"
    if isinstance(layer, Bounded):
        norm_bound = min(norm_bound, layer.norm_bound)  # both bounds are to hold
    layer.__class__ = cls
    assert isinstance(layer, Bounded)
    layer.norm_bound, layer.power_steps, layer.reshaped = float(norm_bound), steps, norm == "reshaped"
    weight = layer.weight.detach()
    shape = (math.prod(weight.shape[1:]),) if layer.reshaped else map_shape(layer, input_shape)
    layer.register_buffer("v", unit(torch.randn(1, *shape).to(weight)))
    with torch.no_grad():
        layer.register_buffer("u", unit(layer.stretch(layer.v, weight)))
    layer.iterate(FIRST_STEPS)
    return layer


def map_shape(layer: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The input on which the map is measured: of one row; of one pixel where a kernel sees one pixel and no padding."""
    if isinstance(layer, nn.Linear):
        return (layer.in_features,)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    dims = len(layer.kernel_size)
    pointwise = set(layer.kernel_size) == {1} and (layer.padding == "valid" or set(layer.padding) == {0})
    return (layer.in_channels, *(1,) * dims) if pointwise else (layer.in_channels, *input_shape[-dims:])


def unit(x: Tensor) -> Tensor:
    """x / |x|; a vector of zeros stays one."""
    return x / torch.linalg.vector_norm(x).clamp_min(torch.finfo(x.dtype).tiny)
