"""The Laplace approximation: a Gaussian posterior around trained weights, from the curvature of the loss at them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.diagonal import Diagonal, DiagonalSum
from levelhead.curvature.full import Full, FullSum
from levelhead.curvature.kronecker import Kronecker, KroneckerSum
from levelhead.curvature.line_search import minimise
from levelhead.curvature.links import bridge, mackay, probit
from levelhead.curvature.outputs import output_curvature
from levelhead.curvature.readout import (
    Reading,
    check_linear,
    has_bias,
    linear_readout,
    one_network,
    read_noisy,
    readings,
    weights,
    with_bias,
)
from levelhead.curvature.structure import Accumulator, Curvature
from levelhead.likelihood import Gaussian
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.predictor import Predictor
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference, Scalar, Targets


class Structure(NamedTuple):
    """How a curvature matrix is summed, and what the sum is."""

    sum: Callable[..., Accumulator]
    value: Callable[..., Curvature]


SUBSETS = ("head",)
STRUCTURES = {
    "full": Structure(FullSum, Full),
    "kronecker": Structure(KroneckerSum, Kronecker),
    "diagonal": Structure(DiagonalSum, Diagonal),
}
LINKS = ("probit", "mackay", "bridge", "mc")
PRIORS = ("marginal_likelihood", "calibration")
PRIOR_RANGE = 1e-4, 1e6


@dataclass(frozen=True)
class Laplace:
    """p(theta | data) ~ Normal(theta*, P^-1),  P = H + prior_precision I,  H = sum_n J_n' Lambda_n J_n over task.train.

    Lambda_n is the curvature of the likelihood in the outputs, J_n their Jacobian; outputs are linear in theta around
    theta*: f | x ~ Normal(f*(x), J P^-1 J'). For the head all of it is in closed form and nothing per example is built.

    subset           "head": the last linear layer, weights and bias.
    structure        "kronecker", "full" or "diagonal".
    prior_precision  a number; "marginal_likelihood": the one with the largest evidence of the training rows, which asks
                     for no held-out rows but often leaves confidence too low; "calibration": the one with the smallest
                     negative log likelihood of the predictions on task.calibration.
    link             from f to classes. "probit": f_k / sqrt(1 + pi / 8 v_k). "mackay": its form for covariances.
                     "bridge": the Dirichlet of the Laplace bridge. "mc": `num_draws` draws of the weights, kept as
                     members, which alone tells epistemic from aleatoric. Regression: one Gaussian with variance
                     noise(x) + v(x), or "mc".

    Regression learns its noise with the network; the curvature is the Fisher information of mean and noise together.
    Members (BatchEnsemble) have a posterior each. The pass over task.train is clean and in eval, sums are float64.
    Raises ValueError for combinations that do not exist, and CannotCompose unless the predictor is one network whose
    outputs come from one linear layer, or where a full matrix would not fit.

    Daxberger et al., arXiv 2106.14806; links after MacKay 1992 and Hobbhahn et al., arXiv 2003.01227.
    """

    reference: ClassVar = Reference(
        "Daxberger et al.", 2021, arxiv="2106.14806", title="Laplace Redux - Effortless Bayesian Deep Learning"
    )
    subset: str = "head"
    structure: str = "kronecker"
    prior_precision: float | str = "marginal_likelihood"
    link: str = "probit"
    num_draws: int = 100

    def __post_init__(self) -> None:
        for name, known in (("subset", SUBSETS), ("structure", tuple(STRUCTURES)), ("link", LINKS)):
            if getattr(self, name) not in known:
                raise ValueError(f"Laplace: {name} must be one of {known}, got {getattr(self, name)!r}")
        if isinstance(self.prior_precision, str):
            if self.prior_precision not in PRIORS:
                raise ValueError(
                    f"Laplace: prior_precision must be a number or one of {PRIORS}, got {self.prior_precision!r}"
                )
        elif not self.prior_precision > 0:
            raise ValueError(f"Laplace: prior_precision must be positive, got {self.prior_precision}")
        if self.num_draws < 1:
            raise ValueError(f"Laplace: num_draws must be at least 1, got {self.num_draws}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor with a posterior over its head. Reads task.train, and task.calibration where it tunes on it."""
        point = one_network(predictor, step="Laplace()")
        if isinstance(point.network.likelihood, Gaussian) and self.link in ("mackay", "bridge"):
            raise CannotCompose(
                f"Laplace(link={self.link!r}) links to classes. For regression leave the default, or write link='mc'"
            )
        fit = Fitted.of(point.network, task.train, STRUCTURES[self.structure])
        prior = self.prior_precision
        if prior == "marginal_likelihood":
            prior = minimise(lambda p: -float(fit.evidence(p)), *PRIOR_RANGE)
        made = HeadLaplace(
            point.network,
            self.structure,
            stacked([value.tensors() for value in fit.curvatures]),
            1.0 if isinstance(prior, str) else float(prior),
            self.link,
            self.num_draws,
            0.0,
            point.noise,
        )
        if prior == "calibration":
            made.prior_precision = tuned(made, task.calibration)
        made.evidence = float(fit.evidence(made.prior_precision))
        return made


class Fitted(NamedTuple):
    """What one pass over the training rows leaves: curvature and log likelihood of every member, and the weights."""

    curvatures: list[Curvature]
    log_likelihood: float
    theta: Float[Tensor, "out in"]

    @classmethod
    def of(cls, network: Network, train: Split, structure: Structure) -> "Fitted":
        """Pass over the rows, clean and in order."""
        layer = linear_readout(network)
        theta = weights(layer)
        sums: list[Accumulator] = []
        log_likelihood = 0.0
        for reading, y in readings(network, layer, train):
            outputs, z = reading.outputs.double(), with_bias(reading.inputs.double(), layer)
            if not sums:
                check_linear(reading, layer, network)
                sums = [structure.sum(*theta.shape, bias=has_bias(layer), like=theta) for _ in range(len(outputs))]
            log_likelihood -= float(network.likelihood.member_loss(outputs, as_double(y)).sum())
            kept = counted(y, network.likelihood.void, outputs.shape[1:-1])
            for member, accumulator in enumerate(sums):
                accumulator.add(output_curvature(network.likelihood, outputs[member][kept]), z[member][kept])
        return cls([accumulator.value() for accumulator in sums], log_likelihood, theta)

    def evidence(self, prior: float) -> Scalar:
        """log p(data) ~ log p(data | theta*) - (log det P - log det P_0 + prior |theta*|^2) / 2, in nats.

        Of all members together; regression: of the standardised targets.
        """
        size, squared = self.theta.numel(), self.theta.square().sum()
        penalties = [c.logdet(prior=prior) - size * math.log(prior) + prior * squared for c in self.curvatures]
        return self.log_likelihood - 0.5 * torch.stack(penalties).sum()


class HeadLaplace(Predictor):
    """A network and the Gaussian posterior of its last layer.

    structure        name of the curvature's structure.
    factors          its tensors, each with a leading axis for members.
    evidence         log marginal likelihood of the training rows, nats.
    noise            seed of the draws, of the weights ("mc") and of the network's own layers that draw.
    """

    def __init__(
        self,
        network: Network,
        structure: str,
        factors: Mapping[str, Float[Tensor, "member ..."]],
        prior_precision: float,
        link: str,
        num_draws: int,
        evidence: float,
        noise: int | None = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.structure = structure
        self.factors = dict(factors)
        self.prior_precision = prior_precision
        self.link = link
        self.num_draws = num_draws
        self.evidence = evidence
        self.noise = noise
        self.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HeadLaplace":
        """Moves the factors with the module; they stay in float64."""
        super()._apply(fn, recurse)
        self.factors = {name: t.to(fn(t).device) for name, t in self.factors.items()}
        return self

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return self.belief(read_noisy(self.network, linear_readout(self.network), x, self.noise))

    def belief(self, reading: Reading) -> Predictive:
        """What outputs and their covariance mean together."""
        likelihood = self.network.likelihood
        outputs, z = reading.outputs.double(), with_bias(reading.inputs.double(), linear_readout(self.network))
        if self.link == "mc":
            belief = likelihood.predictive(self._drawn(outputs, z))
        elif isinstance(likelihood, Gaussian):
            mean, noise = likelihood.moments(outputs)
            variance = self._by_member("variance", z)[..., : likelihood.num_targets]
            belief = likelihood.unstandardised(mean, noise + variance)
        elif self.link == "probit":
            belief = CategoricalMixture(probit(outputs, self._by_member("variance", z)))
        else:
            link = mackay if self.link == "mackay" else bridge
            belief = CategoricalMixture(link(outputs, self._by_member("covariance", z)))
        return as_dtype(belief, reading.outputs.dtype)

    def curvatures(self) -> list[Curvature]:
        """The curvature of every member."""
        members = len(next(iter(self.factors.values())))
        value = STRUCTURES[self.structure].value
        return [value(**{name: t[member] for name, t in self.factors.items()}) for member in range(members)]

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()

    def networks(self) -> Iterator[Network]:
        """The network."""
        yield self.network

    def with_noise(self, noise: int | None) -> "HeadLaplace":
        """See `Predictor.with_noise`."""
        self.noise = noise
        return self

    @property
    def stochastic(self) -> bool:
        """Whether it draws weights, or the network holds layers that draw."""
        return self.link == "mc" or self.network.stochastic

    def _by_member(self, what: str, z: Float[Tensor, "row *batch in"]) -> Tensor:
        """Variance or covariance of the outputs; rows are (member sample), samples share their member's posterior."""
        curvatures = self.curvatures()
        flat = rearrange(z, "(member sample) ... i -> member (sample ...) i", member=len(curvatures))
        found = [getattr(c, what)(part, prior=self.prior_precision) for c, part in zip(curvatures, flat, strict=True)]
        return torch.cat(found).unflatten(0, z.shape[:-1])

    def _drawn(self, outputs: Tensor, z: Float[Tensor, "row *batch in"]) -> Float[Tensor, "drawn *batch out"]:
        """f(x) + J(x) delta for draws delta of the weights: whole functions, the same for every x."""
        curvatures = self.curvatures()
        theta = weights(linear_readout(self.network))
        noise = self._standard_normal((len(curvatures), self.num_draws, *theta.shape)).to(theta)
        draws = torch.stack(
            [c.sample(part, prior=self.prior_precision) for c, part in zip(curvatures, noise, strict=True)]
        )
        rows = rearrange(z, "(member sample) ... i -> member sample ... i", member=len(curvatures))
        moved = torch.einsum("m s ... i, m d o i -> m s d ... o", rows, draws)
        return repeat(outputs, "row ... -> (row d) ...", d=self.num_draws) + moved.flatten(0, 2)

    def _standard_normal(self, shape: tuple[int, ...]) -> Tensor:
        if self.noise is None:
            return torch.randn(shape, dtype=torch.float64)
        with seeded(self.noise):
            return torch.randn(shape, dtype=torch.float64)


@torch.no_grad()
def tuned(made: HeadLaplace, calibration: Split) -> float:
    """The prior precision under which the predictions lose least on held-out rows."""
    like = next(made.network.parameters())
    layer = linear_readout(made.network)
    batches = [batch.to(like.device, like.dtype) for batch in calibration.ordered(500)]
    passes = [read_noisy(made.network, layer, batch.x, made.noise) for batch in batches]

    def loss(prior: float) -> float:
        made.prior_precision = prior
        losses = [
            float(held_out_nll(made.belief(reading), as_double(batch.y), void=made.network.likelihood.void))
            * len(batch.y)
            for reading, batch in zip(passes, batches, strict=True)
        ]
        return sum(losses)

    return minimise(loss, *PRIOR_RANGE, points=21, tolerance=1e-3)


def stacked(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of every member under one name."""
    return {name: torch.stack([value[name] for value in values]) for name in values[0]}


def counted(y: Targets, void: int | None, shape: torch.Size) -> Tensor:
    """Which rows and sites count."""
    if void is None or y.is_floating_point():
        return torch.ones(shape, dtype=torch.bool, device=y.device)
    return y != void


def as_double(y: Targets) -> Targets:
    """Targets in float64, labels as they are."""
    return y.double() if y.is_floating_point() else y


def as_dtype(belief: Any, dtype: torch.dtype) -> Predictive:
    """The belief in another floating type."""
    return type(belief)(**{name: None if t is None else t.to(dtype) for name, t in belief.tensors().items()})
