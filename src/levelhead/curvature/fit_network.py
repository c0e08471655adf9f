"""One pass over training rows for the curvature of a selection: sums that no batch size changes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.capture import Watch, passing
from levelhead.curvature.diagonal import DiagonalBlockSum
from levelhead.curvature.flat_diagonal import FlatDiagonal
from levelhead.curvature.joint import Joint, PerTensor, Whole
from levelhead.curvature.kronecker import KroneckerBlockSum
from levelhead.curvature.outputs import OutputCurvature, empirical_curvature, output_curvature, sampled_curvature
from levelhead.curvature.rows import Rows
from levelhead.curvature.selection import Selection
from levelhead.curvature.spectral import Spectral
from levelhead.curvature.structure import BlockAccumulator
from levelhead.likelihood import Likelihood
from levelhead.network import Network
from levelhead.tasks.split import Split
from levelhead.types import CannotCompose, Targets

KINDS = ("ggn", "empirical", "mc")
OVERSAMPLING = 10
POWER_PASSES = 2

Gone = Iterator[tuple[Watch, Rows]]


class Streamed(NamedTuple):
    """What a pass leaves."""

    curvature: Joint
    log_likelihood: float
    num_rows: int


class Sums(Protocol):
    """A structure's sums over a selection."""

    def add(self, gone: Gone) -> None:
        """Count some rows, with all their columns."""

    def value(self) -> Joint:
        """H in this structure."""


class BlockSums:
    """A sum for each tensor."""

    def __init__(self, selection: Selection, make: Callable[..., BlockAccumulator]) -> None:
        self.selection = selection
        self.sums = [make(watch.block, like=watch.tensor) for watch in selection.watches]

    def add(self, gone: Gone) -> None:
        """See `Sums.add`."""
        for total, (_, rows) in zip(self.sums, gone, strict=True):
            total.add(rows)

    def value(self) -> PerTensor:
        """See `Sums.value`."""
        return PerTensor(self.selection, tuple(total.value() for total in self.sums))


class FullSums:
    """One matrix over all chosen parameters."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        like = selection.watches[0].tensor
        self.sum = torch.zeros(selection.size, selection.size, dtype=torch.float64, device=like.device)

    def add(self, gone: Gone) -> None:
        """See `Sums.add`."""
        flat = rearrange(self.selection.jacobian(gone), "k n p -> (k n) p").double()
        self.sum.addmm_(flat.T, flat)

    def value(self) -> Whole:
        """See `Sums.value`; eigenvalues that rounding made negative become 0."""
        values, vectors = torch.linalg.eigh(self.sum)
        return Whole(self.selection, Spectral(vectors, values.clamp_min(0)))


class RowSums:
    """The rows of W, H = W' W, kept as they are: the smaller matrix where they are fewer than the parameters."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.kept: list[Tensor] = []

    def add(self, gone: Gone) -> None:
        """See `Sums.add`."""
        self.kept.append(rearrange(self.selection.jacobian(gone), "k n p -> (k n) p").double())

    def value(self) -> Whole:
        """See `Sums.value`: all eigenpairs but those of zero."""
        frame, triangle = torch.linalg.qr(torch.cat(self.kept).T)
        left, singular, _ = torch.linalg.svd(triangle)
        return Whole(self.selection, Spectral(frame @ left, singular.square()))


class EntrySums:
    """The diagonal over chosen entries."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        like = selection.watches[0].tensor
        self.sum = torch.zeros(selection.size, dtype=torch.float64, device=like.device)

    def add(self, gone: Gone) -> None:
        """See `Sums.add`."""
        self.sum += self.selection.jacobian(gone).square().sum((0, 1))

    def value(self) -> Whole:
        """See `Sums.value`."""
        return Whole(self.selection, FlatDiagonal(self.sum))


class SketchSums:
    """Y = H Q for a few directions Q: of which subspace iteration makes the largest eigenpairs."""

    def __init__(self, selection: Selection, directions: Float[Tensor, "flat k"]) -> None:
        self.selection = selection
        self.directions = directions
        self.image = torch.zeros_like(directions)

    def add(self, gone: Gone) -> None:
        """See `Sums.add`."""
        flat = rearrange(self.selection.jacobian(gone), "k n p -> (k n) p")
        self.image += flat.T @ (flat @ self.directions.to(flat))

    def largest(self, rank: int) -> Spectral:
        """Rayleigh-Ritz: the eigenpairs of H seen from the directions, which must be orthonormal."""
        projected = self.directions.T @ self.image
        values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
        return Spectral(self.directions @ vectors[:, -rank:], values[-rank:].clamp_min(0))


def streamed(
    network: Network,
    selection: Selection,
    split: Split,
    *,
    structure: str,
    kind: str = "ggn",
    rank: int = 50,
    num_draws: int = 1,
    temperature: float = 1.0,
    rows: int = 100,
) -> Streamed:
    """H = sum_n J_n' Lambda_n J_n over the rows of a split, clean, in order and in eval, and their log likelihood.

    structure    "kronecker", "diagonal", "full", or "low_rank": the `rank` largest eigenpairs, by randomised
                 subspace iteration, which passes over the rows four times.
    kind         Lambda: "ggn", the Fisher information of the outputs; "empirical", of the gradients at the labels;
                 "mc", at `num_draws` labels drawn from the predictive (from torch's global stream).
    temperature  of the likelihood: curvature and log likelihood are divided by it.
    rows         at a time: decides the memory, and nothing else.

    Raises CannotCompose for a Kronecker product over chosen entries.
    """
    whole = all(entries is None for entries in selection.entries)
    if structure == "kronecker" and not whole:
        raise CannotCompose(
            "structure='kronecker' is of whole tensors, and the subset chooses single weights; write structure='full', "
            "'diagonal' or 'low_rank'"
        )

    def passed(sums: Sums | SketchSums) -> tuple[float, int]:
        found = _pass(
            network, selection, split, sums, kind=kind, num_draws=num_draws, scale=temperature**-0.5, rows=rows
        )
        return found[0] / temperature, found[1]

    if structure == "low_rank":
        return _low_rank(selection, passed, rank)
    if structure == "full":
        sums: Sums = RowSums(selection) if few_rows(selection, len(split), network) else FullSums(selection)
    elif structure == "diagonal" and not whole:
        sums = EntrySums(selection)
    else:
        sums = BlockSums(selection, KroneckerBlockSum if structure == "kronecker" else DiagonalBlockSum)
    log_likelihood, count = passed(sums)
    return Streamed(sums.value(), log_likelihood, count)


def few_rows(selection: Selection, num_rows: int, network: Network) -> bool:
    """Whether a full matrix is smaller by the rows of its root, of which there is one an output and example."""
    return 2 * num_rows * network.num_outputs < selection.size


def _low_rank(selection: Selection, passed: Callable[[SketchSums], tuple[float, int]], rank: int) -> Streamed:
    like = selection.watches[0].tensor
    width = min(rank + OVERSAMPLING, selection.size)
    start = torch.randn(selection.size, width, dtype=torch.float64).to(like.device)
    for _ in range(POWER_PASSES + 1):
        sketch = SketchSums(selection, torch.linalg.qr(start).Q)
        log_likelihood, count = passed(sketch)
        start = sketch.image
    sketch = SketchSums(selection, torch.linalg.qr(start).Q)
    passed(sketch)
    return Streamed(Whole(selection, sketch.largest(min(rank, selection.size))), log_likelihood, count)


def _pass(
    network: Network,
    selection: Selection,
    split: Split,
    sums: Sums | SketchSums,
    *,
    kind: str,
    num_draws: int,
    scale: float,
    rows: int,
) -> tuple[float, int]:
    like = next(network.parameters())
    log_likelihood, count = 0.0, 0
    with passing(network, selection.watches, differentiable=False) as run, torch.no_grad():
        for batch in split.ordered(rows):
            batch = batch.to(like.device, like.dtype)
            gone = run(batch.x)
            outputs = gone.outputs.detach().double()
            y = batch.y.double() if batch.y.is_floating_point() else batch.y
            log_likelihood -= float(network.likelihood.member_loss(outputs[None], y).sum())
            count += len(outputs)
            curve = curvature_at(network.likelihood, outputs, y, kind=kind, num_draws=num_draws)
            columns = curve.root(precision=torch.finfo(like.dtype).eps)
            sums.add(gone.back((scale * columns).to(like.dtype)))
    return log_likelihood, count


def curvature_at(
    likelihood: Likelihood, outputs: Float[Tensor, "batch output"], y: Targets, *, kind: str, num_draws: int = 1
) -> OutputCurvature:
    """Lambda of some rows, of that kind."""
    if kind == "empirical":
        return empirical_curvature(likelihood, outputs, y)
    return sampled_curvature(likelihood, outputs, num_draws) if kind == "mc" else output_curvature(likelihood, outputs)
