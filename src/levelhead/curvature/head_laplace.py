"""A network and the Gaussian posterior of its last linear layer, in closed form."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.fit_head import HEAD_STRUCTURES
from levelhead.curvature.linked import PAIRWISE, as_dtype, linked
from levelhead.curvature.readout import Reading, linear_readout, read_noisy, weights, with_bias
from levelhead.curvature.structure import Curvature
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.predictive import Predictive, concatenate
from levelhead.predictor import Predictor

MAX_NUMBERS = 2**23  # of the covariances of some rows: 64 MB, of which a link holds a few


class HeadLaplace(Predictor):
    """f | x ~ Normal(f*(x), J P^-1 J') over the last layer; members (BatchEnsemble) have a posterior each.

    structure        name of the curvature's structure.
    factors          its tensors, each with a leading axis for members.
    evidence         log marginal likelihood of the training rows, nats.
    noise            seed of the draws, of the weights ("mc", "weights") and of the network's own layers that draw.
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
        if self.link in ("mc", "weights"):  # outputs are linear in these weights: draws of them are draws of functions
            belief: Predictive = likelihood.predictive(self._drawn(outputs, z))
        elif self.link in PAIRWISE:
            belief = self._pairwise(outputs, z)
        else:
            variance = self._by_member("variance", z)
            wanted = likelihood.num_targets if isinstance(likelihood, Gaussian) else outputs.shape[-1]
            belief = linked(likelihood, self.link, outputs, variance[..., :wanted])
        return as_dtype(belief, reading.outputs.dtype)

    def curvatures(self) -> list[Curvature]:
        """The curvature of every member."""
        members = len(next(iter(self.factors.values())))
        value = HEAD_STRUCTURES[self.structure].value
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
        return self.link in ("mc", "weights") or self.network.stochastic

    def _pairwise(self, outputs: Tensor, z: Float[Tensor, "row *batch in"]) -> Predictive:
        """Some rows at a time: a thousand classes have a million covariances each."""
        rows = max(1, MAX_NUMBERS // (outputs.shape[0] * outputs[0, 0].numel() * outputs.shape[-1]))
        parts = zip(outputs.split(rows, dim=1), z.split(rows, dim=1), strict=True)
        return concatenate(
            [linked(self.network.likelihood, self.link, o, self._by_member("covariance", part)) for o, part in parts]
        )

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


def stacked(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of every member under one name."""
    return {name: torch.stack([value[name] for value in values]) for name in values[0]}
