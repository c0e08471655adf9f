"""Predictors: modules from x to a Predictive. They keep their constructor's arguments, so one function saves all."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from levelhead.layout import channels_innermost
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.predictive import Predictive, concatenate, mix
from levelhead.tasks.task import Split


class Predictor(nn.Module):
    """x -> Predictive, differentiable in x unless `differentiable` is False.

    A stochastic predictor with a `noise` seed repeats itself call by call; noise=None draws afresh, as attacks want.
    Prediction never changes the predictor: not its mode, not a statistic.
    """

    differentiable: ClassVar[bool] = True

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """The belief about each row of x: pixels in [0, 1], or features in their own units."""

    @abstractmethod
    def children_predictors(self) -> Sequence["Predictor"]:
        """The predictors inside, for walks over the tree."""

    def networks(self) -> Iterator[Network]:
        """The networks inside, for cost and landscape."""
        for child in self.children_predictors():
            yield from child.networks()

    def with_noise(self, noise: int | None) -> "Predictor":
        """Set the noise seed of every stochastic predictor inside; returns self."""
        for child in self.children_predictors():
            child.with_noise(noise)
        return self

    @property
    def stochastic(self) -> bool:
        """Whether fresh calls differ."""
        return any(child.stochastic for child in self.children_predictors())


class Point(Predictor):
    """One network with one set of weights; its members and samples become the mixture."""

    def __init__(self, network: Network, noise: int | None = 0) -> None:
        super().__init__()
        self.network = network
        self.noise = noise
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return self.network.likelihood.predictive(self.outputs(x))

    def outputs(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "row *batch output"]:
        """The raw outputs behind the belief."""
        with noise_of(self.noise, self.network):
            return self.network(x, num_samples=samples_of(self.network))

    def embed(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "row *batch feature"]:
        """The features behind the outputs."""
        with noise_of(self.noise, self.network):
            return self.network.embed(x, num_samples=samples_of(self.network))

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()

    def networks(self) -> Iterator[Network]:
        """The network."""
        yield self.network

    def with_noise(self, noise: int | None) -> "Point":
        """See `Predictor.with_noise`."""
        self.noise = noise
        return self

    @property
    def stochastic(self) -> bool:
        """Whether the network holds layers that draw."""
        return self.network.stochastic


class Ensemble(Predictor):
    """A mixture of predictors, equally weighted unless log_weights (member,) say otherwise."""

    log_weights: Tensor | None

    def __init__(self, members: Sequence[Predictor], log_weights: Float[Tensor, " member"] | None = None) -> None:
        super().__init__()
        if not members:
            raise ValueError("Ensemble: members is empty; an ensemble wants at least one predictor")
        self.members = nn.ModuleList(members)
        self.register_buffer("log_weights", log_weights)
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return mix([member(x) for member in self.members], self.log_weights)

    def children_predictors(self) -> Sequence[Predictor]:
        """The members."""
        return list(self.members)  # type: ignore[arg-type]


class WeightSamples(Predictor):
    """One network under several draws of its weights and statistics.

    draws        name -> (draw, *shape), for every parameter and buffer that differs between draws.
    num_chains   how many Markov chains they come from, of equal length, one after the other on the draw axis.
    diagnostics  what their sampler has to say about them: acceptance, R-hat, ...
    """

    log_weights: Tensor | None

    def __init__(
        self,
        network: Network,
        draws: Mapping[str, Float[Tensor, "draw ..."]],
        log_weights: Float[Tensor, " draw"] | None = None,
        noise: int | None = 0,
        num_chains: int = 1,
        diagnostics: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        counts = {len(t) for t in draws.values()}
        if len(counts) != 1:
            raise ValueError(f"WeightSamples: draws must agree in number, got {sorted(counts)}")
        self.network = network
        self.draws = {name: _laid_out(t) for name, t in draws.items()}
        self.register_buffer("log_weights", log_weights)
        self.noise = noise
        self.num_draws = counts.pop()
        if num_chains < 1 or self.num_draws % num_chains:
            raise ValueError(
                f"WeightSamples: {self.num_draws} draws cannot come from {num_chains} chains of one length"
            )
        self.num_chains = num_chains
        self.diagnostics = dict(diagnostics or {})
        self.eval()

    def _apply(self, fn, recurse: bool = True) -> "WeightSamples":  # type: ignore[no-untyped-def]
        """Moves the draws with the module: names with dots cannot be buffers."""
        super()._apply(fn, recurse)
        self.draws = {name: fn(t) for name, t in self.draws.items()}
        return self

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return mix([self.network.likelihood.predictive(outputs) for outputs in self.outputs(x)], self.log_weights)

    def outputs(self, x: Float[Tensor, "batch *input"]) -> Iterator[Float[Tensor, "row *batch output"]]:
        """The raw outputs of one draw after the other: only one draw's activations are ever in memory."""
        for index in range(self.num_draws):
            with noise_of(self.noise, self.network):
                weights = {name: t[index] for name, t in self.draws.items()}
                outputs = functional_call(self.network, weights, (x,), {"num_samples": samples_of(self.network)})
            yield outputs

    def thinned(self, num_draws: int) -> "WeightSamples":
        """`num_draws` of the draws, evenly spread along each chain: cheaper to keep and to predict with.

        Raises ValueError where chains would not keep equally many, or where log_weights say that draws are not equal.
        """
        have, keep = self.num_draws // self.num_chains, num_draws // self.num_chains
        if num_draws % self.num_chains or not 1 <= keep <= have:
            raise ValueError(
                f"thinned: num_draws wants a multiple of {self.num_chains} (chains) up to {self.num_draws}, got "
                f"{num_draws}"
            )
        if self.log_weights is not None:
            raise ValueError("thinned: these draws have weights, so a part of them is another mixture; keep them all")
        places = [(k + 1) * have // keep - 1 + c * have for c in range(self.num_chains) for k in range(keep)]
        kept = {name: t[places] for name, t in self.draws.items()}
        return WeightSamples(self.network, kept, None, self.noise, self.num_chains, self.diagnostics)

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()

    def networks(self) -> Iterator[Network]:
        """The network, once: its passes are `num_draws`."""
        yield self.network

    def with_noise(self, noise: int | None) -> "WeightSamples":
        """See `Predictor.with_noise`."""
        self.noise = noise
        return self

    @property
    def stochastic(self) -> bool:
        """Whether the network holds layers that draw."""
        return self.network.stochastic


def _laid_out(draws: Tensor) -> Tensor:
    """Draws laid out as networks lay out their weights (see `layout.channels_last`), so that saved ones sum alike."""
    if draws.ndim != 5:
        return draws
    return channels_innermost(draws.flatten(0, 1)).unflatten(0, draws.shape[:2])


def samples_of(network: Network) -> int | None:
    """What a predictor asks of its network: its samples, or None where no layer draws."""
    return network.num_samples if network.stochastic else None


def noise_of(noise: int | None, network: Network) -> AbstractContextManager[None]:
    """The stream of a predictor's draws: started at its noise seed, or torch's own where None."""
    if noise is None or not network.stochastic:
        return nullcontext()
    return seeded(noise, network.device)


@torch.no_grad()
def predict(predictor: Predictor, split: Split, *, batch_size: int = 500) -> Predictive:
    """The beliefs about a whole split, in order, in batches."""
    return concatenate([predictor(batch.x) for batch in split.ordered(batch_size)])
