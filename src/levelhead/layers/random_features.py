"""A linear readout of random Fourier features: a Gaussian process with a squared-exponential kernel, approximately."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Declared, Hint

# How far a unit of learning rate moves the outputs along their own gradient. LeNet on a tenth of Fashion-MNIST learns
# best from 16 to 64 (SGD, lr 0.1 and 0.03, momentum 0.9), learns slowly below 4 and diverges from 256 on.
STEP_IN_FUNCTION_SPACE = 32.0


class RandomFeatures(nn.Module):
    """phi(h) = a cos(h Omega / length_scale + b), with Omega and b drawn once and fixed.

    a = sqrt(2 / rank) gives E[phi(h) phi(h')'] = exp(-|h - h'|^2 / (2 length_scale^2)); a = 1 is rank / 2 times that.

    width         size of h.                     rank        number of features.
    orthogonal    columns of Omega in blocks of orthogonal directions with independent chi lengths (Yu et al.,
                  arXiv 1610.09072), which has less variance than independent Gaussian columns.
    scaled        a = sqrt(2 / rank) instead of 1.
    layer_norm    h to mean 0 and variance 1 first, without parameters: what is left of a distance is its direction.

    Draws from torch's global stream.
    """

    omega: Float[Tensor, "width rank"]
    phase: Float[Tensor, " rank"]

    def __init__(
        self, width: int, rank: int, *, length_scale: float, orthogonal: bool, scaled: bool, layer_norm: bool
    ) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.length_scale = length_scale
        self.amplitude = math.sqrt(2 / rank) if scaled else 1.0
        self.register_buffer("omega", orthogonal_gaussian(width, rank) if orthogonal else torch.randn(width, rank))
        self.register_buffer("phase", 2 * math.pi * torch.rand(rank))

    @property
    def prior_variance(self) -> float:
        """Expected |phi(h)|^2: the variance of a readout with standard normal weights, where nothing is known."""
        return 0.5 * len(self.phase) * self.amplitude**2

    def forward(self, h: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch rank"]:
        """The features, in float32 at least: the cosine of a large argument has no digits in half precision."""
        with torch.autocast(h.device.type, enabled=False):
            h = h.to(self.omega.dtype)
            if self.layer_norm:
                h = F.layer_norm(h, h.shape[-1:])
            return self.amplitude * torch.cos(F.linear(h, self.omega.T / self.length_scale, self.phase))

    def extra_repr(self) -> str:
        """The settings."""
        width, rank = self.omega.shape
        return f"{width}, {rank}, length_scale={self.length_scale:g}, amplitude={self.amplitude:g}"


class Weights(Declared, nn.Linear):
    """The trained weights beta: no bias, and no weight decay, since their prior is the Gaussian process's.

    The loss curves |phi|^2 / |h|^2 times as much in beta as in the weights of a linear head, so beta asks for a smaller
    learning rate: with the trunk's, a = 1 diverges.
    """

    def __init__(self, features: RandomFeatures, num_outputs: int) -> None:
        super().__init__(len(features.phase), num_outputs, bias=False)
        self.hints = {  # type: ignore[misc]
            "weight": Hint(lr=min(1.0, STEP_IN_FUNCTION_SPACE / features.prior_variance), decay=False)
        }


class RandomFeatureReadout(nn.Module):
    """outputs = phi(h) beta. Acts on the last axis only; members and samples share Omega, b and beta."""

    def __init__(self, features: RandomFeatures, num_outputs: int) -> None:
        super().__init__()
        self.features = features
        self.beta = Weights(features, num_outputs)

    def forward(self, h: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch output"]:
        """The mean of the Gaussian process at h."""
        return self.beta(self.features(h))


def orthogonal_gaussian(width: int, rank: int) -> Float[Tensor, "width rank"]:
    """Columns as long as standard normal vectors, orthogonal within each block of `width`."""
    blocks = []
    for start in range(0, rank, width):
        q, r = torch.linalg.qr(torch.randn(width, width))
        q = q * r.diagonal().sign()  # uniform over rotations; QR alone prefers some
        blocks.append(q[:, : min(width, rank - start)])
    lengths = torch.randn(width, rank).norm(dim=0)
    return torch.cat(blocks, dim=1) * lengths
