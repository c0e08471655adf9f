"""Densities of one weight, the same for every weight: Gaussian, Laplace, Student's t."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.types import Scalar


class Density(Protocol):
    """A density exp(-energy(w)) / Z of one number, for tensors of independent such numbers."""

    @property
    def scale(self) -> float:
        """Its size: the factor by which samplers may stretch their steps."""

    @property
    def variance(self) -> float:
        """Of one element; infinite where the tails are too heavy."""

    def energy(self, w: Tensor) -> Scalar:
        """-log density of all elements together, without their log Z."""

    def log_z(self) -> float:
        """log Z of one element."""

    def draw(self, like: Tensor) -> Tensor:
        """Independent draws of a tensor's shape, from torch's global stream."""


@dataclass(frozen=True)
class Gaussian:
    """N(0, scale^2)."""

    scale: float

    @property
    def variance(self) -> float:
        """See `Density`."""
        return self.scale**2

    def energy(self, w: Float[Tensor, "..."]) -> Scalar:
        """See `Density`."""
        return 0.5 * (w / self.scale).square().sum()

    def log_z(self) -> float:
        """See `Density`."""
        return math.log(self.scale) + 0.5 * math.log(2 * math.pi)

    def draw(self, like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """See `Density`."""
        return self.scale * torch.randn_like(like)


@dataclass(frozen=True)
class DoubleExponential:
    """exp(-|w| / b) / (2 b) with b = scale / sqrt(2), so that `scale` is the standard deviation."""

    scale: float

    @property
    def variance(self) -> float:
        """See `Density`."""
        return self.scale**2

    @property
    def b(self) -> float:
        """The mean of |w|."""
        return self.scale / math.sqrt(2)

    def energy(self, w: Float[Tensor, "..."]) -> Scalar:
        """See `Density`."""
        return w.abs().sum() / self.b

    def log_z(self) -> float:
        """See `Density`."""
        return math.log(2 * self.b)

    def draw(self, like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """See `Density`."""
        size = torch.empty_like(like).exponential_()
        return self.b * torch.where(torch.rand_like(like) < 0.5, -size, size)


@dataclass(frozen=True)
class StudentT:
    """(1 + w^2 / (dof scale^2))^(-(dof + 1) / 2), up to its constant."""

    scale: float
    dof: float

    @property
    def variance(self) -> float:
        """See `Density`."""
        return self.scale**2 * self.dof / (self.dof - 2) if self.dof > 2 else math.inf

    def energy(self, w: Float[Tensor, "..."]) -> Scalar:
        """See `Density`."""
        return 0.5 * (self.dof + 1) * ((w / self.scale).square() / self.dof).log1p().sum()

    def log_z(self) -> float:
        """See `Density`."""
        gammas = math.lgamma(self.dof / 2) - math.lgamma((self.dof + 1) / 2)
        return gammas + 0.5 * math.log(self.dof * math.pi) + math.log(self.scale)

    def draw(self, like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """See `Density`."""
        shared = torch.distributions.Chi2(torch.tensor(self.dof, dtype=like.dtype, device=like.device))
        return self.scale * torch.randn_like(like) * (self.dof / shared.sample(like.shape)).sqrt()
