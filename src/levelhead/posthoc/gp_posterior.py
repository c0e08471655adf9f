"""SNGP's posterior: after training, one exact pass over the training rows gives a random-feature head its variance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.curvature.line_search import minimise
from levelhead.curvature.readout import Reading, check_likelihood, one_network, read_noisy, readings
from levelhead.layers.random_features import RandomFeatureReadout
from levelhead.likelihood import Categorical, Gaussian
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.predictor import Predictor
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference, Targets

FACTORS = 1e-3, 1e4  # range in which a mean-field factor is looked for; the papers use 0.1 to 30


@dataclass(frozen=True)
class GPPosterior:
    """P = ridge I + sum_i w_i phi_i phi_i' over the training rows;  v(x) = ridge phi(x)' P^-1 phi(x).

    Classes: logits g / sqrt(1 + mean_field v), so confidence falls where v grows; the label stays.
    Regression (an extension, the papers have none): variance = noise(x) + v(x), with phi scaled to prior variance 1 in
    standardised target units and w_i = 1 / noise_i.

    mean_field  factor on v; pi / 8 in the theory, tuned in practice. None: the one, 0 included, with the smallest
                negative log likelihood on task.calibration. Not used for regression.
    ridge       prior precision s.
    per_class   w_i = p (1 - p), one matrix a class, as in the paper. False: w_i = 1 and one matrix, as in its code,
                which keeps the order of the classes and did slightly better out of distribution.

    The pass over task.train is clean and in eval; members (BatchEnsemble) have a matrix each. Sums and factors are
    float64. v lies in [0, |phi|^2] and falls where rows are added.
    Raises CannotCompose unless the predictor is one network with a `RandomFeatureHead()`.

    Liu et al., arXiv 2205.00403.
    """

    reference: ClassVar = Reference(
        "Liu et al.",
        2022,
        arxiv="2205.00403",
        title="A Simple Approach to Improve Single-Model Deep Uncertainty via Distance-Awareness",
    )
    mean_field: float | None = None
    ridge: float = 1.0
    per_class: bool = False

    def __post_init__(self) -> None:
        if self.mean_field is not None and not self.mean_field >= 0:
            raise ValueError(f"GPPosterior: mean_field must be at least 0, or None to tune it, got {self.mean_field}")
        if not self.ridge > 0:
            raise ValueError(f"GPPosterior: ridge must be positive, got {self.ridge}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor with the variance of its head. Reads task.train, and task.calibration where it tunes."""
        point = one_network(predictor, step="GPPosterior()")
        check_likelihood(point.network.likelihood, step="GPPosterior()")
        network = self._checked(point.network)
        precision = self._precision(network, task.train)
        try:
            factor = torch.linalg.cholesky(precision)
        except RuntimeError as error:
            raise ValueError(
                f"GPPosterior: the precision matrix is singular in float64 with ridge={self.ridge}; give a larger ridge"
            ) from error
        fitted = GaussianProcess(network, factor, self.ridge, self.mean_field or 0.0, point.noise)
        if self.mean_field is None and isinstance(network.likelihood, Categorical):
            fitted.mean_field = tuned(fitted, task.calibration)
        return fitted

    def _checked(self, network: Network) -> Network:
        if readout(network) is None:
            raise CannotCompose(
                f"GPPosterior() needs the features of a RandomFeatureHead(), and this head is a "
                f"{type(network.head).__name__}. Write surgery=(..., RandomFeatureHead()), posthoc=(GPPosterior(),); "
                "for an ordinary last layer write posthoc=(Laplace(),)"
            )
        return network

    def _precision(self, network: Network, train: Split) -> Float[Tensor, "member matrix rank rank"]:
        """P of every member, and of every class or target where these have one each."""
        head = readout(network)
        assert head is not None
        total: Tensor | None = None
        for reading, y in readings(network, head.beta, train):
            phi = rearrange(normalised(reading.inputs, head, network), "member ... rank -> member (...) rank")
            weights = rearrange(self._weights(reading, y, network), "member ... matrix -> member matrix (...) 1")
            weighted = rearrange(phi, "member b rank -> member 1 b rank") * weights
            gram = torch.einsum("m b i, m k b j -> m k i j", phi, weighted)
            total = gram if total is None else total + gram
        assert total is not None, "splits are not empty"
        eye = torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
        return total + self.ridge * eye

    def _weights(self, reading: Reading, y: Targets, network: Network) -> Float[Tensor, "member *batch matrix"]:
        outputs, likelihood = reading.outputs.double(), network.likelihood
        if isinstance(likelihood, Gaussian):
            return 1 / likelihood.moments(outputs)[1]
        p = outputs.softmax(-1)
        weights = p * (1 - p) if self.per_class else torch.ones_like(p[..., :1])
        if likelihood.void is not None and not y.is_floating_point():
            weights = weights * rearrange((y != likelihood.void).to(weights), "... -> ... 1")
        return weights


class GaussianProcess(Predictor):
    """A network with a random-feature head and the variance of that head.

    cholesky    (member, matrix, rank, rank) float64: the factor of P; `matrix` is 1, or a class or target.
    ridge       the prior precision that P holds.
    mean_field  factor on the variance where it softens logits.
    """

    def __init__(
        self,
        network: Network,
        cholesky: Float[Tensor, "member matrix rank rank"],
        ridge: float,
        mean_field: float,
        noise: int | None = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.cholesky: Tensor
        self.register_buffer("cholesky", cholesky)
        self.ridge = ridge
        self.mean_field = mean_field
        self.noise = noise
        self.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GaussianProcess":
        """Moves the factor with the module; it stays in float64."""
        precise = self.cholesky
        super()._apply(fn, recurse)
        self.cholesky = precise.to(self.cholesky.device)
        return self

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return self.belief(*self.moments(x))

    def belief(
        self, outputs: Float[Tensor, "row *batch output"], variance: Float[Tensor, "row *batch matrix"]
    ) -> Predictive:
        """What outputs and their variance mean together."""
        likelihood = self.network.likelihood
        if isinstance(likelihood, Gaussian):
            mean, noise = likelihood.moments(outputs)
            return likelihood.unstandardised(mean, noise + variance, variance.expand_as(mean))
        return CategoricalMixture(outputs / torch.sqrt(1 + self.mean_field * variance))

    def moments(
        self, x: Float[Tensor, "batch *input"]
    ) -> tuple[Float[Tensor, "row *batch output"], Float[Tensor, "row *batch matrix"]]:
        """Outputs of every row, and their variance v(x)."""
        head = readout(self.network)
        assert head is not None
        reading = read_noisy(self.network, head.beta, x, self.noise)
        phi = normalised(reading.inputs, head, self.network)
        sites = phi.shape[1:-1]
        members, matrices = self.cholesky.shape[:2]
        columns = rearrange(phi, "(member sample) ... rank -> member 1 rank (sample ...)", member=members)
        columns = columns.expand(members, matrices, *columns.shape[2:])
        solved = torch.linalg.solve_triangular(self.cholesky, columns, upper=False)
        variance = self.ridge * solved.square().sum(-2)
        variance = rearrange(variance, "member matrix (sample b) -> (member sample) b matrix", b=sites.numel())
        return reading.outputs, variance.unflatten(1, sites).to(reading.outputs.dtype)

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()

    def networks(self) -> Iterator[Network]:
        """The network."""
        yield self.network

    def with_noise(self, noise: int | None) -> "GaussianProcess":
        """See `Predictor.with_noise`."""
        self.noise = noise
        return self

    @property
    def stochastic(self) -> bool:
        """Whether the network holds layers that draw."""
        return self.network.stochastic


def readout(network: Network) -> RandomFeatureReadout | None:
    """The random-feature head of a network, wherever a later surgery put it."""
    found: list[nn.Module] = network.layers(RandomFeatureReadout)
    head = found[-1] if found else None
    assert head is None or isinstance(head, RandomFeatureReadout)
    return head


def normalised(
    phi: Float[Tensor, "row *batch rank"], head: RandomFeatureReadout, network: Network
) -> Float[Tensor, "row *batch rank"]:
    """Features in float64; for regression scaled so that the prior variance is 1 in standardised target units."""
    phi = phi.double()
    return phi / head.features.prior_variance**0.5 if isinstance(network.likelihood, Gaussian) else phi


@torch.no_grad()
def tuned(fitted: GaussianProcess, calibration: Split) -> float:
    """The mean-field factor with the smallest negative log likelihood on held-out rows; 0 where none helps."""
    like = next(fitted.network.parameters())
    batches = [batch.to(like.device, like.dtype) for batch in calibration.ordered(500)]
    outputs, variances = zip(*[fitted.moments(batch.x) for batch in batches], strict=True)
    output, variance = torch.cat(outputs, dim=1).double(), torch.cat(variances, dim=1).double()
    y, void = torch.cat([batch.y for batch in batches]), fitted.network.likelihood.void

    def loss(factor: float) -> float:
        return float(held_out_nll(CategoricalMixture(output / torch.sqrt(1 + factor * variance)), y, void=void))

    best = minimise(loss, *FACTORS)
    return best if loss(best) < loss(0.0) else 0.0
