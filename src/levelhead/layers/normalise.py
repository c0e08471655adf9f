"""The first layer of every network: inputs in, inputs of zero mean and unit variance out."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std along axis 1: a channel of (batch, channel, *site), a feature of (batch, feature).

    One number of mean and std serves every channel. The numbers are buffers: they move with the device and
    are saved with the weights. Raises ValueError for lengths that differ or a std that is not positive.
    """

    mean: Float[Tensor, " channel"]
    std: Float[Tensor, " channel"]

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(
                f"Normalise: mean has {len(mean)} numbers, std has {len(std)}; wants one of each a channel"
            )
        if not mean or min(std) <= 0:
            raise ValueError(f"Normalise: std wants positive numbers, one a channel; got {tuple(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()))
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()))

    def forward(self, x: Float[Tensor, "batch channel *site"]) -> Float[Tensor, "batch channel *site"]:
        """Inputs of the training distribution come out with mean 0 and variance 1 a channel."""
        if len(self.mean) not in (1, x.shape[1]):
            raise ValueError(
                f"Normalise: inputs {tuple(x.shape)} have {x.shape[1]} channels, mean and std have {len(self.mean)}; "
                "give Signature one number a channel, or one for all"
            )
        sites = " ".join("1" * (x.ndim - 2))
        return (x - rearrange(self.mean, f"channel -> channel {sites}")) / rearrange(
            self.std, f"channel -> channel {sites}"
        )

    def extra_repr(self) -> str:
        """The numbers, rounded."""
        return f"mean={[round(m, 4) for m in self.mean.tolist()]}, std={[round(s, 4) for s in self.std.tolist()]}"
