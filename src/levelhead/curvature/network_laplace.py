"""A network and a Gaussian posterior over a selection of its weights, from any of its layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.curvature.capture import Pass, passing
from levelhead.curvature.diagonal import Diagonal
from levelhead.curvature.flat_diagonal import FlatDiagonal
from levelhead.curvature.joint import Joint, OuterPart, Part, PerTensor, Whole
from levelhead.curvature.kronecker import Kronecker
from levelhead.curvature.linked import PAIRWISE, as_dtype, linked
from levelhead.curvature.selection import Priors, Selection
from levelhead.curvature.spectral import Spectral
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.predictive import Predictive, concatenate
from levelhead.predictor import Predictor, WeightSamples


class NetworkLaplace(Predictor):
    """f | x ~ Normal(f*(x), J P^-1 J') over the chosen weights, or the network under draws of these (link="weights").

    structure        "kronecker", "diagonal", "full" or "low_rank".
    factors          its tensors.
    names            the tensors of the network it is over, all of each; or
    indices          sorted flat places in its parameters, where single weights were chosen.
    prior_precision  one a tensor.
    link, num_draws  as in Laplace.
    evidence         log marginal likelihood of the training rows, nats.
    noise            seed of the draws.
    rows             at a time, which decides the memory.
    """

    def __init__(
        self,
        network: Network,
        structure: str,
        factors: Mapping[str, Tensor],
        names: Sequence[str],
        indices: Int[Tensor, " selected"] | None,
        prior_precision: Sequence[float],
        link: str,
        num_draws: int,
        evidence: float,
        noise: int | None = 0,
        rows: int = 100,
    ) -> None:
        super().__init__()
        self.network = network
        self.structure = structure
        self.factors = {name: t.contiguous() for name, t in factors.items()}  # as files keep them: equal to the bit
        self.names = tuple(names)
        self.indices = indices
        self.prior_precision = tuple(prior_precision)
        self.link = link
        self.num_draws = num_draws
        self.evidence = evidence
        self.noise = noise
        self.rows = rows
        self.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "NetworkLaplace":
        """Moves the factors with the module; they stay in float64."""
        super()._apply(fn, recurse)
        self.factors = {name: t.to(fn(t).device) for name, t in self.factors.items()}
        if self.indices is not None:
            self.indices = self.indices.to(next(iter(self.factors.values())).device)
        return self

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        if self.link == "weights":
            return WeightSamples(self.network, self.weight_draws(self.num_draws), noise=self.noise)(x)
        return self.under(x, [self.priors])[0]

    @property
    def priors(self) -> Priors:
        """The prior precisions as a tensor."""
        return next(iter(self.factors.values())).new_tensor(self.prior_precision)

    def selection(self) -> Selection:
        """The weights the posterior is over."""
        if self.indices is not None:
            return Selection.of_indices(self.network, self.indices)
        return Selection.of_names(self.network, self.names)

    def curvature(self, selection: Selection | None = None) -> Joint:
        """The curvature as a value."""
        selection = selection or self.selection()
        if self.structure == "kronecker":
            return PerTensor.made_of(selection, Kronecker, self.factors)
        if self.structure == "diagonal" and self.indices is None:
            return PerTensor.made_of(selection, Diagonal, self.factors)
        return Whole(selection, (FlatDiagonal if self.structure == "diagonal" else Spectral)(**self.factors))

    def under(self, x: Float[Tensor, "batch *input"], priors: Sequence[Priors]) -> list[Predictive]:
        """The beliefs under several prior precisions, from one set of passes.

        Coordinates are shared, so each vector of `priors` must hold equal precisions unless it stands alone.
        """
        differentiable = torch.is_grad_enabled() and x.requires_grad
        curvature = self.curvature()
        seed = int(torch.randint(2**62, ())) if self.noise is None else self.noise
        with passing(self.network, curvature.selection.watches, differentiable=differentiable) as run:
            parts = [
                self._part(run(rows), curvature, priors, seed, differentiable=differentiable)
                for rows in x.split(self.rows)
            ]
        return [concatenate([as_dtype(part[place], x.dtype) for part in parts]) for place in range(len(priors))]

    def _part(
        self, gone: Pass, curvature: Joint, priors: Sequence[Priors], seed: int, *, differentiable: bool
    ) -> list[Predictive]:
        likelihood = self.network.likelihood
        outputs = gone.outputs.double() if differentiable else gone.outputs.detach().double()
        wanted = outputs.shape[-1]
        if isinstance(likelihood, Gaussian) and self.link != "mc":
            wanted = likelihood.num_targets
        columns = torch.eye(wanted, outputs.shape[-1]).to(gone.outputs)[:, None].expand(-1, len(outputs), -1)
        totals: list[Tensor] = []
        with torch.set_grad_enabled(differentiable), seeded(seed, gone.outputs.device):
            for part in curvature.parts(gone.back(columns, differentiable=differentiable), prior=priors[0]):
                found = [added.double() for added in self._added(part, priors)]
                totals = [t + f for t, f in zip(totals, found, strict=True)] if totals else found
        return [self._belief(outputs, total) for total in totals]

    def _added(self, part: Part | OuterPart, priors: Sequence[Priors]) -> list[Tensor]:
        """What some coordinates add to the spread of the outputs, or to draws of them, under each prior."""
        if self.link not in ("mc", *PAIRWISE):
            return part.variances(priors)
        roots = [part.root(prior) for prior in priors]
        if self.link == "mc":
            noise = torch.randn(len(part.spectrum), self.num_draws).to(roots[0])
            return [torch.einsum("k n w, w s -> s n k", root, noise) for root in roots]
        return [torch.einsum("k n w, l n w -> n k l", root, root) for root in roots]

    def _belief(self, outputs: Float[Tensor, "batch output"], total: Tensor) -> Predictive:
        likelihood = self.network.likelihood
        if self.link == "mc":
            return likelihood.predictive(outputs + total)
        return linked(likelihood, self.link, outputs[None], total[None])

    def weight_draws(self, num: int) -> dict[str, Float[Tensor, "draw ..."]]:
        """Draws of the chosen weights, as tensors of the network; the same ones for the same noise."""
        selection = self.selection()
        theta = selection.theta()
        seed = int(torch.randint(2**62, ())) if self.noise is None else self.noise
        with seeded(seed):
            noise = torch.randn(num, selection.size, dtype=torch.float64).to(theta.device)
        return selection.weights(theta + self.curvature(selection).sample(noise, prior=self.priors))

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()

    def networks(self) -> Iterator[Network]:
        """The network."""
        yield self.network

    def with_noise(self, noise: int | None) -> "NetworkLaplace":
        """See `Predictor.with_noise`."""
        self.noise = noise
        return self

    @property
    def stochastic(self) -> bool:
        """Whether it draws."""
        return self.link in ("mc", "weights")
