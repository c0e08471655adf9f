"""Curvature over a selection of a network's parameters: a structure for each tensor, or one matrix over them all.

Priors are one precision for each of the selection's tensors. Values act on theta like matrices; what predictions need
of them is the Jacobian in coordinates in which H + prior is diagonal, a tensor at a time where the structure allows it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.capture import Watch
from levelhead.curvature.rows import Rows
from levelhead.curvature.selection import Priors, Selection
from levelhead.curvature.structure import BlockCurvature, FlatCurvature
from levelhead.types import Scalar


class Part(NamedTuple):
    """Some coordinates of the outputs' Jacobian, and the eigenvalues and the prior along them."""

    coordinates: Float[Tensor, "k batch own"]
    spectrum: Float[Tensor, " own"]
    tensor: int

    def root(self, prior: Priors) -> Float[Tensor, "k batch own"]:
        """Coordinates in units of the posterior's standard deviations: what they add to the outputs' covariance."""
        return self.coordinates * (self.spectrum + prior[self.tensor]).rsqrt().to(self.coordinates)

    def variances(self, priors: Sequence[Priors]) -> list[Float[Tensor, "batch k"]]:
        """What these coordinates add to the variance of each output, under several priors."""
        weights = torch.stack([1 / (self.spectrum + prior[self.tensor]) for prior in priors], dim=-1)
        return list(torch.einsum("k n w, w p -> p n k", self.coordinates.square(), weights.to(self.coordinates)))


class OuterPart(NamedTuple):
    """The same of a tensor that is used once an example: G = b a', so that variances want no G."""

    rows: Rows
    spectrum: Float[Tensor, " own"]
    tensor: int

    def variances(self, priors: Sequence[Priors]) -> list[Float[Tensor, "batch k"]]:
        """What these coordinates add to the variance of each output, under several priors."""
        a, b = self.rows.inputs[:, :, 0].square(), self.rows.cotangents[:, :, :, 0].square()
        values = self.spectrum.reshape(len(a), b.shape[-1], a.shape[-1])
        weights = [1 / (values + prior[self.tensor]).to(a) for prior in priors]
        return [torch.einsum("k g n o, g n o -> n k", b, torch.einsum("g o i, g n i -> g n o", w, a)) for w in weights]

    def root(self, prior: Priors) -> Float[Tensor, "k batch own"]:
        """See `Part.root`."""
        return Part(self.rows.gradients().flatten(2), self.spectrum, self.tensor).root(prior)


class Joint(Protocol):
    """H over a selection."""

    @property
    def selection(self) -> Selection:
        """The parameters it is over."""

    def __matmul__(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """H theta."""

    def solve(self, theta: Float[Tensor, "*b flat"], *, prior: Priors) -> Float[Tensor, "*b flat"]:
        """(H + prior)^-1 theta."""

    def logdet(self, *, prior: Priors) -> Scalar:
        """log det(H + prior), differentiable in the prior."""

    def sample(self, noise: Float[Tensor, "*b flat"], *, prior: Priors) -> Float[Tensor, "*b flat"]:
        """Draws of Normal(0, (H + prior)^-1), made of standard normal noise."""

    def parts(self, gone: Iterable[tuple[Watch, Rows]], *, prior: Priors) -> Iterator[Part | OuterPart]:
        """The Jacobian in coordinates in which H + prior is diagonal.

        Where all precisions are equal, the coordinates do not depend on them.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What the value is made of."""


@dataclass(frozen=True, eq=False)
class PerTensor:
    """Blocks along the diagonal, one a tensor: Kronecker products or diagonals."""

    selection: Selection
    blocks: tuple[BlockCurvature, ...]

    def __matmul__(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """See `Joint.__matmul__`."""
        return self._flat([block @ part for block, part in zip(self.blocks, self._split(theta), strict=True)])

    def solve(self, theta: Float[Tensor, "*b flat"], *, prior: Priors) -> Float[Tensor, "*b flat"]:
        """See `Joint.solve`."""
        pieces = zip(self.blocks, self._split(theta), prior, strict=True)
        return self._flat([block.solve(part, prior=float(p)) for block, part, p in pieces])

    def logdet(self, *, prior: Priors) -> Scalar:
        """See `Joint.logdet`."""
        return torch.stack([(b.values + p).log().sum() for b, p in zip(self.blocks, prior, strict=True)]).sum()

    def sample(self, noise: Float[Tensor, "*b flat"], *, prior: Priors) -> Float[Tensor, "*b flat"]:
        """See `Joint.sample`."""
        pieces = zip(self.blocks, self._split(noise), prior, strict=True)
        return self._flat([block.sample(part, prior=float(p)) for block, part, p in pieces])

    def parts(self, gone: Iterable[tuple[Watch, Rows]], *, prior: Priors) -> Iterator[Part | OuterPart]:
        """See `Joint.parts`."""
        for tensor, (block, (_, rows)) in enumerate(zip(self.blocks, gone, strict=True)):
            if rows.inputs.shape[2] == 1:
                yield OuterPart(block.along(rows), block.values.flatten(), tensor)
            else:
                yield Part(block.coordinates(rows), block.values.flatten(), tensor)

    def tensors(self) -> dict[str, Tensor]:
        """See `Joint.tensors`."""
        named = zip(self.selection.names, self.blocks, strict=True)
        return {f"{name}:{key}": t for name, block in named for key, t in block.tensors().items()}

    @classmethod
    def made_of(cls, selection: Selection, kind: type[BlockCurvature], tensors: Mapping[str, Tensor]) -> "PerTensor":
        """The value whose `tensors` these are."""
        own: dict[str, dict[str, Tensor]] = {name: {} for name in selection.names}
        for name, t in tensors.items():
            tensor, _, key = name.rpartition(":")
            own[tensor][key] = t
        return cls(selection, tuple(kind(**own[name]) for name in selection.names))

    def _split(self, theta: Tensor) -> list[Tensor]:
        parts = theta.split(self.selection.sizes, dim=-1)
        return [watch.as_block(part) for watch, part in zip(self.selection.watches, parts, strict=True)]

    def _flat(self, blocks: list[Tensor]) -> Tensor:
        return torch.cat([w.as_flat(b) for w, b in zip(self.selection.watches, blocks, strict=True)], dim=-1)


@dataclass(frozen=True, eq=False)
class Whole:
    """One matrix over all chosen parameters: full, of low rank, or the diagonal of chosen entries."""

    selection: Selection
    value: FlatCurvature
    _scaled: dict[tuple[float, ...], tuple[FlatCurvature, Tensor]] = field(default_factory=dict, repr=False)

    def __matmul__(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """See `Joint.__matmul__`."""
        return self.value @ theta

    def solve(self, theta: Float[Tensor, "*b flat"], *, prior: Priors) -> Float[Tensor, "*b flat"]:
        """See `Joint.solve`."""
        return self.value.solve(theta, prior=self._prior(prior))

    def logdet(self, *, prior: Priors) -> Scalar:
        """See `Joint.logdet`."""
        return self.value.logdet(prior=self._prior(prior))

    def sample(self, noise: Float[Tensor, "*b flat"], *, prior: Priors) -> Float[Tensor, "*b flat"]:
        """See `Joint.sample`."""
        return self.value.sample(noise, prior=self._prior(prior))

    def parts(self, gone: Iterable[tuple[Watch, Rows]], *, prior: Priors) -> Iterator[Part | OuterPart]:
        """See `Joint.parts`. Unequal precisions want a decomposition in their units, which is kept."""
        jacobian = self.selection.jacobian(gone)
        if (prior == prior[0]).all():
            yield Part(self.value.coordinates(jacobian), self.value.spectrum, 0)
            return
        key = tuple(prior.tolist())
        if key not in self._scaled:
            self._scaled.clear()
            self._scaled[key] = self.value.in_units(self.selection.each(prior))
        scaled, units = self._scaled[key]
        # in units of the prior the precision is spectrum + 1, whatever the precisions are
        yield Part(scaled.coordinates(jacobian / units.to(jacobian)), scaled.spectrum + 1 - prior[0], 0)

    def tensors(self) -> dict[str, Tensor]:
        """See `Joint.tensors`."""
        return self.value.tensors()

    def _prior(self, prior: Priors) -> Tensor:
        return prior[0] if len(prior) == 1 or bool((prior == prior[0]).all()) else self.selection.each(prior)
