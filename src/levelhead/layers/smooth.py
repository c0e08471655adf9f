"""Smooth = Blur o Prob: bounded activations, averaged over neighbouring pixels.

Measured on CPU, one thread, forward and backward on channels-last maps (64, 64, 28, 28): a depthwise convolution that
pads by itself takes 20 ms; average pooling 24, padding first 33, adding shifted slices 94. Hence kernels are centred
(an even number of taps gets a leading zero) so that the convolution's own symmetric padding keeps the size.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

PADDINGS = ("zero", "replicate", "circular", "reference")
TEMPERATURES = {
    "tanh": 10.0,
    "sigmoid": 10.0,
    "softmax": 10.0,
    "clamp": 6.0,
    "scale": 5.0,
    "bn_tanh": 10.0,
    "bn": 1.0,
    "none": 1.0,
}
PROBS = tuple(TEMPERATURES)


def blur_kernel(taps: tuple[float, ...]) -> Float[Tensor, "1 1 tap tap"]:
    """outer(f, f) / sum, f = taps; of an even number of taps it is centred by a leading row and column of zeros."""
    centred = taps if len(taps) % 2 else (0.0, *taps)
    f = torch.tensor(centred, dtype=torch.get_default_dtype())
    f = f / f.sum()
    return rearrange(torch.outer(f, f), "h w -> 1 1 h w")


class Smooth(nn.Module):
    """Blur(Prob(x)) of a map (batch, channel, height, width).

    prob         what bounds the activations, t = temperature (None: 10; 6 for "clamp", 5 for "scale"):
                 "tanh"     t tanh(x / t)
                 "sigmoid"  4 t (sigmoid(x / t) - 1/2) = 2 t tanh(x / 2t)
                 "softmax"  t softmax over channels of x / t
                 "clamp"    x cut at t (and at -t)
                 "scale"    x / t
                 "bn_tanh"  ReLU(t tanh(BatchNorm(x) / t))
                 "bn"       ReLU(BatchNorm(x))
                 "none"     x
    taps         the separable filter: (1, 1) is the 2x2 box, (1, 2, 1) the next binomial, (1,) no blur.
    padding      "zero", "replicate", "circular": the size stays, floor((n - 1) / 2) pixels before and the rest after.
                 "reference": n // 2 zeros on every side, as the authors' code has it: one row and column more for an
                 even number of taps.
    rectify      ReLU after the bounding map, so that values are in [0, t). It changes nothing on maps without negative
                 values, and drops all of them elsewhere.
    channels     of the map; needed by the BatchNorm variants alone.
    """

    kernel: Float[Tensor, "1 1 tap tap"]

    def __init__(
        self,
        prob: str = "tanh",
        *,
        temperature: float | None = None,
        taps: tuple[float, ...] = (1.0, 1.0),
        padding: str = "zero",
        rectify: bool = True,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if prob not in PROBS:
            raise ValueError(f"Smooth: prob must be one of {', '.join(map(repr, PROBS))}; got {prob!r}")
        if padding not in PADDINGS:
            raise ValueError(f"Smooth: padding must be one of {', '.join(map(repr, PADDINGS))}; got {padding!r}")
        if not taps or min(taps) < 0 or sum(taps) <= 0:
            raise ValueError(f"Smooth: taps wants numbers that are not negative, such as (1, 2, 1); got {taps}")
        if prob.startswith("bn") and channels is None:
            raise ValueError(f"Smooth: prob={prob!r} has a BatchNorm and wants to know the number of channels")
        self.prob = prob
        self.temperature = TEMPERATURES[prob] if temperature is None else temperature
        if self.temperature <= 0:
            raise ValueError(f"Smooth: temperature must be positive, got {temperature}")
        self.taps = tuple(taps)
        self.padding = padding
        self.rectify = rectify or prob.startswith("bn")
        self.norm = nn.BatchNorm2d(channels) if prob.startswith("bn") and channels is not None else None
        self.register_buffer("kernel", blur_kernel(self.taps), persistent=False)

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel g v"]:
        """Bounded and averaged."""
        # The last factor of Prob goes into the kernel, since the blur is linear: a pass over the map less.
        return self.blur(self._shape(x), gain=self._gain)

    def bounded(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel h w"]:
        """Prob alone."""
        return self._shape(x) * self._gain

    def blur(self, x: Float[Tensor, "batch channel h w"], *, gain: float = 1.0) -> Float[Tensor, "batch channel g v"]:
        """Blur alone, times `gain`."""
        if len(self.taps) == 1:
            return x * gain
        kernel = (self.kernel * gain).to(x.dtype)
        if self.padding == "reference" and len(self.taps) % 2 == 0:
            kernel = kernel[..., 1:, 1:]
        kernel = kernel.expand(x.shape[1], -1, -1, -1)
        margin = self.kernel.shape[-1] // 2
        if self.padding in ("replicate", "circular"):
            return F.conv2d(F.pad(x, (margin,) * 4, mode=self.padding), kernel, groups=x.shape[1])
        return F.conv2d(x, kernel, padding=margin, groups=x.shape[1])

    @property
    def _gain(self) -> float:
        """Prob(x) = _gain * _shape(x)."""
        t = self.temperature
        return {"tanh": t, "bn_tanh": t, "sigmoid": 2 * t, "softmax": t, "scale": 1 / t}.get(self.prob, 1.0)

    def _shape(self, x: Tensor) -> Tensor:
        z = x if self.norm is None else self.norm(x)
        if self.prob in ("tanh", "bn_tanh"):
            z = (z / self.temperature).tanh_()
        elif self.prob == "sigmoid":
            z = (z / (2 * self.temperature)).tanh_()
        elif self.prob == "softmax":
            z = (z / self.temperature).softmax(dim=1)
        elif self.prob == "clamp":
            z = z.clamp(-self.temperature, self.temperature)
        return F.relu(z) if self.rectify else z

    def extra_repr(self) -> str:
        """The numbers that make it."""
        return f"{self.prob!r}, t={self.temperature}, taps={self.taps}, {self.padding!r}, rectify={self.rectify}"
