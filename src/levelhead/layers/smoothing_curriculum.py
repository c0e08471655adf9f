"""A Gaussian behind a convolution that narrows as training goes on."""

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.declared import Pace
from levelhead.layers.frequency_filters import gaussian_kernels, identity_kernels
from levelhead.layers.paced_filter import PacedFilter


class SmoothingCurriculum(PacedFilter):
    """All channels through one Gaussian of width sigma0 factor^floor(epoch / every).

    stored  prediction goes through the last one; else through none.
    """

    def __init__(
        self, channels: int, *, sigma0: float, factor: float, every: int, size: int, padding: str, stored: bool
    ) -> None:
        super().__init__(channels, size, padding=padding, stored=stored)
        self.sigma0, self.factor, self.every = sigma0, factor, every
        self.to_epoch(0)

    def width(self, epoch: int) -> float:
        """sigma in an epoch, from 0."""
        return self.sigma0 * self.factor ** (epoch // self.every)

    def pace(self, now: Pace) -> None:
        """Narrower when it is time."""
        self.to_epoch(now.epoch)

    def to_epoch(self, epoch: int) -> None:
        """The filter of an epoch."""
        sigma = self.width(epoch)
        if sigma != self.known:
            kernels = gaussian_kernels(torch.full((self.channels,), sigma), self.size)
            done = torch.equal(kernels, identity_kernels(self.channels, self.size))  # narrow enough in the end
            self.become(kernels, sigma, idle=done)

    def predicted(self, x: Float[Tensor, "rows channel h w"]) -> Float[Tensor, "rows channel h w"]:
        """See `PacedFilter.predicted`."""
        return self.filtered(x, self.kernel) if self.stored else x
