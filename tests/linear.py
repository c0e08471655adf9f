"""A linear predictor of two classes on tiny images, whose attacks have closed forms."""

import torch
from echo import Echo
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.predictive import CategoricalMixture, Predictive


class Linear(Echo):
    """logits (-z, z) / 2 with z = scale * (w . x + noise), w of ones and twos in mixed signs."""

    def __init__(self, seed: int = 0, scale: float = 1.0, jitter: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(
            torch.randint(1, 3, (16,), generator=generator) * torch.randn(16, generator=generator).sign()
        )
        self.scale = scale
        self.jitter = jitter

    def z(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, " batch"]:
        noise = self.jitter * torch.randn(16) if self.jitter else 0.0
        return self.scale * ((x.flatten(1) - 0.5) @ (self.weight + noise))

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        z = self.z(x)
        return CategoricalMixture(rearrange(torch.stack([-z / 2, z / 2]), "k b -> 1 b k"))

    def signed_margin(self, x: Tensor, y: Tensor) -> Float[Tensor, " batch"]:
        z = self.z(x).detach()
        return torch.where(y == 1, z, -z)


def images(n: int = 12, *, low: float = 0.2, high: float = 0.8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(n, 1, 4, 4, generator=generator)
    return x, torch.randint(2, (n,), generator=generator)
