"""Statistics of features that arrive in batches: means and scatters in float64, and a uniform sample of rows."""

from typing import NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor


class Moments:
    """Counts, means and scatters by class, merged batch by batch (Chan et al. 1979), so that no sum cancels.

    covariance  "tied": one scatter about the classes' means, (feature, feature); "full": one a class;
                "diagonal": its diagonal alone, (class, feature).
    """

    def __init__(self, num_classes: int, covariance: str = "tied") -> None:
        self.num_classes = num_classes
        self.covariance = covariance
        self.count: Tensor = torch.empty(0)
        self.mean: Tensor = torch.empty(0)
        self.scatter: Tensor = torch.empty(0)

    def add(self, z: Float[Tensor, "row feature"], y: Int[Tensor, " row"]) -> None:
        """Take in rows with their labels."""
        z = z.double()
        if self.count.numel() == 0:
            self._start(z)
        count = torch.bincount(y, minlength=self.num_classes).double()
        mean = torch.zeros_like(self.mean).index_add_(0, y, z) / count.clamp_min(1)[:, None]
        merged = self.count + count
        moved = mean - self.mean
        weight = self.count * count / merged.clamp_min(1)
        centred = z - mean[y]
        if self.covariance == "tied":
            self.scatter += centred.mT @ centred + (weight[:, None] * moved).mT @ moved
        elif self.covariance == "diagonal":
            self.scatter.index_add_(0, y, centred.square())
            self.scatter += weight[:, None] * moved.square()
        else:
            for label in y.unique().tolist():
                own = centred[y == label]
                self.scatter[label] += own.mT @ own + weight[label] * torch.outer(moved[label], moved[label])
        self.mean += moved * (count / merged.clamp_min(1))[:, None]
        self.count = merged

    def _start(self, z: Tensor) -> None:
        width = z.shape[-1]
        shapes = {
            "tied": (width, width),
            "full": (self.num_classes, width, width),
            "diagonal": (self.num_classes, width),
        }
        self.count = z.new_zeros(self.num_classes)
        self.mean = z.new_zeros(self.num_classes, width)
        self.scatter = z.new_zeros(shapes[self.covariance])

    @property
    def present(self) -> Tensor:
        """Which classes have rows."""
        return self.count > 0


class Gaussian(NamedTuple):
    """A normal distribution of all rows."""

    mean: Float[Tensor, " feature"]
    covariance: Float[Tensor, "feature feature"]


def pooled(moments: Moments) -> Gaussian:
    """Mean and covariance of all rows, whatever their class, from tied moments: within plus between."""
    share = moments.count / moments.count.sum()
    mean = share @ moments.mean
    apart = moments.mean - mean
    between = einsum(share, apart, apart, "k, k i, k j -> i j")
    return Gaussian(mean, moments.scatter / moments.count.sum() + between)


def shrunk(
    covariance: Float[Tensor, "*class feature feature"], shrinkage: float
) -> Float[Tensor, "*class feature feature"]:
    """(1 - s) S + s tr(S) / d I: positive definite for s > 0; a scatter of nothing becomes I."""
    width = covariance.shape[-1]
    scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale) / max(shrinkage, torch.finfo(scale.dtype).tiny))
    eye = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    return (1 - shrinkage) * covariance + shrinkage * rearrange(scale, "... -> ... 1 1") * eye


def factor(
    covariance: Float[Tensor, "*class feature feature"], shrinkage: float, *, wanted_by: str
) -> Float[Tensor, "*class feature feature"]:
    """The Cholesky factor of the shrunk covariance. Raises ValueError where it is singular."""
    found, info = torch.linalg.cholesky_ex(shrunk(covariance, shrinkage))
    if bool((info > 0).any()):
        raise ValueError(
            f"{wanted_by}: the covariance of the {covariance.shape[-1]} features is singular in float64 with "
            f"shrinkage={shrinkage}: too few rows, or features that never vary. Give a larger shrinkage"
        )
    return found


def whitened(
    lower: Float[Tensor, "*class feature feature"], z: Float[Tensor, "row feature"]
) -> Float[Tensor, "*class row feature"]:
    """L^-1 z of every row: its squared length is the Mahalanobis distance from the origin."""
    return torch.linalg.solve_triangular(lower, z.double().mT, upper=False).mT


def nearest(
    z: Float[Tensor, "*batch feature"], lower: Float[Tensor, "feature feature"], centres: Float[Tensor, "class feature"]
) -> Float[Tensor, "*batch"]:
    """min_k (z - mu_k)' S^-1 (z - mu_k), S = L L', with centres L^-1 mu_k."""
    rows = whitened(lower, z.flatten(0, -2))
    distances = torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
    return distances.amin(-1).unflatten(0, z.shape[:-1])


class Sample:
    """At most `size` rows of a stream, every subset equally likely; the same rows for the same seed."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._rows: list[Tensor] = []
        self._keys = torch.empty(0, dtype=torch.float64)

    def add(self, *rows: Float[Tensor, "row _"]) -> None:
        """Take in rows of one or several tables."""
        keys = torch.cat([self._keys, torch.rand(len(rows[0]), generator=self._generator, dtype=torch.float64)])
        held = [torch.cat(pair) for pair in zip(self._rows, rows, strict=True)] if self._rows else list(rows)
        if len(keys) > self.size:  # the rows of the smallest keys, in the order in which they came
            kept = keys.topk(self.size, largest=False).indices.sort().values
            keys, held = keys[kept], [table[kept.to(table.device)] for table in held]
        self._keys, self._rows = keys, held

    def value(self) -> tuple[Tensor, ...]:
        """The sampled rows of every table."""
        return tuple(self._rows)
