"""Linear layers and convolutions with a Gaussian posterior over every weight, each weight independent of the others.

Three ways to draw while training, which have the same mean and variance at every output and differ in what is shared:

    "flipout"  one draw for the batch, with random signs for each row: rows are nearly uncorrelated, and each row sees
               one and the same weight at all its places. Two convolutions.
    "local"    the outputs are drawn, not the weights: the least noise in the gradient. A convolution's outputs at
               different pixels are drawn independently, though a draw of the weight would move them together. Two
               convolutions.
    "shared"   one draw for the batch: all rows move together, which is the most noise. One convolution.

At prediction each sample is one draw of all weights, the same for every row: functions, not noise.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Hint, Posterior
from levelhead.layout import channels_innermost
from levelhead.types import Scalar

ESTIMATORS = ("flipout", "local", "shared")
LAYERS: TypeAlias = "nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d"
# The prior takes the place of weight decay.
NO_DECAY = dict.fromkeys(("weight", "bias", "weight_rho", "bias_rho"), Hint(decay=False))


class GaussianWeights(Posterior):
    """y = x * w + b with w ~ N(weight, std^2) for every element, std = softplus(weight_rho), and b likewise.

    The means are the layer's own `weight` and `bias`. At rest the layer computes with them.
    """

    hints: ClassVar[Mapping[str, Hint]] = NO_DECAY
    weight: Tensor
    bias: Tensor | None
    weight_rho: nn.Parameter
    bias_rho: nn.Parameter | None
    estimator: str
    channel_axis: ClassVar[int] = 1

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own map with these weights."""
        raise TypeError(f"{type(self).__name__} must define apply_weight")

    def adopt(self, layer: LAYERS, *, estimator: str, init_scale: float) -> "GaussianWeights":
        """Take over a layer's weights as means, with standard deviations of `init_scale` times their root mean square.

        Where a layer starts at zero, its usual initial size, 1 / sqrt(fan_in), stands in for the root mean square.
        """
        self.weight, self.bias = layer.weight, layer.bias
        self.estimator = estimator
        fan_in = layer.weight[0].numel()
        rms = float(layer.weight.detach().double().square().mean().sqrt()) or 1 / math.sqrt(fan_in)
        self.weight_rho = _constant_like(layer.weight, softplus_inverse(init_scale * rms))
        self.bias_rho = None if layer.bias is None else _constant_like(layer.bias, softplus_inverse(init_scale * rms))
        return self

    @property
    def weight_std(self) -> Float[Tensor, "out ..."]:
        """Standard deviation of every weight."""
        return F.softplus(self.weight_rho)

    @property
    def bias_std(self) -> Float[Tensor, " out"]:
        """Standard deviation of every bias. Raises TypeError where there is none."""
        if self.bias_rho is None:
            raise TypeError(f"{type(self).__name__} has no bias")
        return F.softplus(self.bias_rho)

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """The output at the means, or under draws where it draws."""
        if not self.drawing:
            return self.apply_weight(x, self.weight, self.bias)
        if not self.training or self.estimator == "shared":
            return self.shared(x)
        return self.flipout(x) if self.estimator == "flipout" else self.local(x)

    def shared(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """One draw of the weights for each (member sample) block of rows."""
        blocks = self.blocks_in(x.shape[0])
        if x.shape[0] % blocks:
            raise ValueError(f"{type(self).__name__}: {x.shape[0]} rows are no multiple of {blocks} blocks")
        weight_std = self.weight_std
        outputs = []
        for rows in x.chunk(blocks):
            weight = self.weight + weight_std * torch.randn_like(self.weight)
            bias = None if self.bias is None else self.bias + self.bias_std * torch.randn_like(self.bias)
            outputs.append(self.apply_weight(rows, weight, bias))
        return torch.cat(outputs)

    def flipout(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """x * weight + s (r x * dw), one dw for all rows, r and s signs of each row's channels. Wen et al. 1803.04386.

        Every row's weight, weight + dw s r', has the posterior's own distribution, and is uncorrelated to the others'.
        """
        dw = self.weight_std * torch.randn_like(self.weight)
        moved = self.apply_weight(x * signs(x, self.channel_axis), dw, None)
        y = self.apply_weight(x, self.weight, self.bias) + moved * signs(moved, self.channel_axis)
        return y + self.bias_noise(y)

    def local(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """N(x * weight, x^2 * std^2) at every output, drawn there. Kingma et al., arXiv 1506.02557."""
        mean = self.apply_weight(x, self.weight, self.bias)
        variance = self.apply_weight(x.square(), self.weight_std.square(), None)
        # where all inputs are zero the root has no finite slope
        std = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return mean + std * torch.randn_like(mean) + self.bias_noise(mean)

    def bias_noise(self, y: Float[Tensor, "rows ..."]) -> Tensor:
        """What drawing the bias adds: one draw a row and channel, the same at all places of the row."""
        if self.bias is None:
            return y.new_zeros(())
        shape = _row_channel_shape(y, self.channel_axis)
        noise = torch.randn(shape, dtype=y.dtype, device=y.device)
        return noise * self.bias_std.to(y.dtype).reshape(_channel_shape(y, self.channel_axis))

    def kl(self, prior_scale: float | None) -> Scalar:
        """sum over weights and biases of KL(N(mean, std^2) || N(0, prior_scale^2)), in nats.

        prior_scale  None: for the weight and for the bias the scale that makes it smallest, mean(mean^2 + std^2)^(1/2),
                     which maximises the bound (empirical Bayes).
        """
        total = gaussian_kl(self.weight, self.weight_std, prior_scale)
        return total if self.bias is None else total + gaussian_kl(self.bias, self.bias_std, prior_scale)


class GaussianLinear(GaussianWeights, nn.Linear):  # type: ignore[misc]  # torch says that it has a bias, always
    """nn.Linear with Gaussian weights; the rows are the leading axis, and axes between are places of a row."""

    channel_axis: ClassVar[int] = -1

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `GaussianWeights.apply_weight`."""
        return F.linear(x, weight, bias)


class GaussianConv1d(GaussianWeights, nn.Conv1d):
    """nn.Conv1d with Gaussian weights."""

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `GaussianWeights.apply_weight`."""
        return self._conv_forward(x, weight, bias)


class GaussianConv2d(GaussianWeights, nn.Conv2d):
    """nn.Conv2d with Gaussian weights."""

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `GaussianWeights.apply_weight`."""
        if weight.shape[1] == 1:  # sums of such kernels forget their layout, and with it that of the maps
            weight = channels_innermost(weight)
        return self._conv_forward(x, weight, bias)


class GaussianConv3d(GaussianWeights, nn.Conv3d):
    """nn.Conv3d with Gaussian weights."""

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `GaussianWeights.apply_weight`."""
        return self._conv_forward(x, weight, bias)


KINDS: Mapping[type[nn.Module], type[GaussianWeights]] = {
    nn.Linear: GaussianLinear,
    nn.Conv1d: GaussianConv1d,
    nn.Conv2d: GaussianConv2d,
    nn.Conv3d: GaussianConv3d,
}


def gaussian_layer(layer: LAYERS, *, estimator: str, init_scale: float) -> GaussianWeights:
    """The layer with a posterior around its weights. Raises TypeError for other kinds of layers and for subclasses."""
    kind = KINDS.get(type(layer))
    if kind is None:
        raise TypeError(f"gaussian_layer: wants one of {[k.__name__ for k in KINDS]}, got {type(layer).__name__}")
    has_bias = layer.bias is not None
    with torch.device("meta"):  # the weights come from the layer
        if isinstance(layer, nn.Linear):
            made = kind(layer.in_features, layer.out_features, has_bias)
        else:
            made = kind(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
                has_bias,
                layer.padding_mode,
            )
    return made.adopt(layer, estimator=estimator, init_scale=init_scale)


def gaussian_kl(mean: Float[Tensor, "..."], std: Float[Tensor, "..."], prior_scale: float | None) -> Scalar:
    """sum log(p / std) + (std^2 + mean^2) / (2 p^2) - 1/2 over all elements, p = prior_scale; the best p where None."""
    squares = mean.square() + std.square()
    if prior_scale is None:
        return 0.5 * mean.numel() * squares.mean().log() - std.log().sum()
    return (math.log(prior_scale) - std.log() + squares / (2 * prior_scale**2) - 0.5).sum()


def softplus_inverse(y: float) -> float:
    """x with log(1 + exp(x)) = y, for y > 0."""
    return y + math.log(-math.expm1(-y))


def signs(x: Float[Tensor, "rows ..."], channel_axis: int) -> Tensor:
    """+1 or -1 at random for each row and channel, one at all places."""
    shape = _row_channel_shape(x, channel_axis)
    return 2 * torch.randint(2, shape, device=x.device).to(x.dtype) - 1


def _channel_shape(x: Tensor, channel_axis: int) -> list[int]:
    shape = [1] * x.ndim
    shape[channel_axis] = x.shape[channel_axis]
    return shape


def _row_channel_shape(x: Tensor, channel_axis: int) -> list[int]:
    shape = _channel_shape(x, channel_axis)
    shape[0] = x.shape[0]
    return shape


def _constant_like(parameter: Tensor, value: float) -> nn.Parameter:
    """A parameter of one value, which learns where the other does."""
    return nn.Parameter(torch.full_like(parameter, value), requires_grad=parameter.requires_grad)
