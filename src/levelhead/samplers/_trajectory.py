"""Hamiltonian trajectories: the posterior as a potential, leapfrog steps in it, and how long these steps should be."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.forward import Extended, Forward, Objective
from levelhead.network import Network
from levelhead.priors.independent import Gaussian
from levelhead.priors.term import Independent, Prior, undecayed
from levelhead.types import Batch

Named = Mapping[str, Tensor]


class Place(NamedTuple):
    """A point of a trajectory: weights, the gradient of the energy by white coordinates, and the energy.

    energy  without the prior that the potential adds itself, float64, in nats; the objective (mean loss) beside it.
    """

    weights: Named
    gradient: Named
    energy: Float[Tensor, ""]


class Potential(Protocol):
    """An energy U(w) over named tensors, and the linear map w = push(v) of coordinates in which its prior is white."""

    def at(self, weights: Named) -> Place:
        """Energy and gradient there."""

    def push(self, white: Named) -> Named:
        """A change of weights from one of white coordinates."""

    def rise(self, start: Place, end: Place) -> Float[Tensor, ""]:
        """U(end) - U(start), float64."""


def leap(potential: Potential, place: Place, momentum: Named, step: float) -> tuple[Place, Named]:
    """One leapfrog step of white coordinates with unit mass: half of the momentum, the weights, the other half."""
    half = plus(momentum, place.gradient, -0.5 * step)
    place = potential.at(plus(place.weights, potential.push(half), step))
    return place, plus(half, place.gradient, -0.5 * step)


def change(potential: Potential, start: Place, before: Named, end: Place, after: Named) -> Float[Tensor, ""]:
    """H(end, after) - H(start, before) of U + |momentum|^2 / 2, float64, as a sum of differences: large sums of nearly
    equal size never meet. Infinite where it is not a number."""
    kinetic = [squares(after[name], before[name]) for name in before]
    return (potential.rise(start, end) + 0.5 * torch.stack(kinetic).sum()).nan_to_num(nan=math.inf, posinf=math.inf)


def squares(new: Tensor, old: Tensor) -> Float[Tensor, ""]:
    """sum new^2 - old^2 in float64, by elements."""
    new, old = new.double(), old.double()
    return ((new - old) * (new + old)).sum()


def plus(one: Named, other: Named, factor: float) -> Named:
    """one + factor * other, name by name."""
    names = list(one)
    sums = torch._foreach_add([one[name] for name in names], [other[name] for name in names], alpha=factor)
    return dict(zip(names, sums, strict=True))


class Posterior:
    """U(w) = (N objective(w) + |w|^2 / (2 prior_scale^2)) / T over the parameters that require grad.

    The second part is for parameters of which no prior among the objective's terms speaks, and whose layer does not
    decline decay. Coordinates are white for U's prior at temperature T.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        batch: Batch,
        *,
        prior_scale: float | None,
        temperature: float,
        num_rows: int,
    ) -> None:
        self.network, self.objective, self.batch = network, objective, batch
        self.temperature, self.num_rows = temperature, num_rows
        self.parameters = moving(network)
        self.priors = priors(objective)
        self.own = () if prior_scale is None else unspoken(network, self.priors)
        self.prior_scale = 1.0 if prior_scale is None else prior_scale
        if self.own:
            self.priors.append(Prior([Independent(Gaussian(self.prior_scale), self.own)], num_rows))
        spoken = {name for prior in self.priors for name in prior.names} - set(self.parameters)
        self.resting = {name: torch.zeros_like(network.get_parameter(name)) for name in spoken}

    def at(self, weights: Named) -> Place:
        """See `Potential`."""
        self.place(weights)
        loss = self.objective(Forward(self.network, self.batch))
        found = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        slope = {name: self.num_rows * g for name, g in zip(self.parameters, found, strict=True)}
        for name in self.own:
            slope[name] = slope[name] + weights[name] / self.prior_scale**2
        slope = self._through(Prior.pull, slope)
        cold = self.temperature**-0.5  # sqrt(T) from the coordinates, 1 / T from the energy
        energy = loss.detach().double() * (self.num_rows / self.temperature)
        return Place(weights, {name: cold * g for name, g in slope.items()}, energy)

    def push(self, white: Named) -> Named:
        """See `Potential`."""
        pushed = self._through(Prior.push, white)
        return pushed if self.temperature == 1 else {name: self.temperature**0.5 * v for name, v in pushed.items()}

    def rise(self, start: Place, end: Place) -> Float[Tensor, ""]:
        """See `Potential`."""
        own = [squares(end.weights[name], start.weights[name]) for name in self.own]
        prior = torch.stack(own).sum() / (2 * self.temperature * self.prior_scale**2) if own else 0.0
        return end.energy - start.energy + prior

    def _through(self, turn: Callable[[Prior, Named], dict[str, Tensor]], given: Named) -> dict[str, Tensor]:
        """Push or pull by every prior, which also speak of parameters that rest: these stay."""
        turned = {**given, **self.resting}
        for prior in self.priors:
            turned = turn(prior, turned)
        return {name: turned[name] for name in given}

    def total(self, place: Place) -> Float[Tensor, ""]:
        """U there, in nats, up to a constant."""
        nowhere = {name: torch.zeros_like(w) for name, w in place.weights.items()}
        return self.rise(Place(nowhere, {}, torch.zeros_like(place.energy)), place)

    @torch.no_grad()
    def place(self, weights: Named) -> None:
        """Give the network these weights."""
        torch._foreach_copy_(list(self.parameters.values()), [weights[name] for name in self.parameters])


@dataclass
class StepSize:
    """Dual averaging of log(step) until the mean acceptance is `target` (Hoffman & Gelman, arXiv 1111.4246).

    step  to try next; `settled` is the average over all tried, of which the late ones count most.
    """

    first: float
    target: float
    tried: int = 0
    shortfall: float = 0.0
    log_step: float = 0.0
    log_mean: float = 0.0

    def __post_init__(self) -> None:
        if not self.tried:
            self.log_step = self.log_mean = math.log(self.first)

    def hear(self, acceptance: float) -> None:
        """Learn from one trajectory's mean acceptance probability."""
        self.tried += 1
        self.shortfall += (self.target - acceptance - self.shortfall) / (self.tried + 10)
        self.log_step = math.log(10 * self.first) - math.sqrt(self.tried) / 0.05 * self.shortfall
        self.log_mean += self.tried**-0.75 * (self.log_step - self.log_mean)

    @property
    def step(self) -> float:
        """To try next."""
        return math.exp(self.log_step)

    @property
    def settled(self) -> float:
        """To keep."""
        return math.exp(self.log_mean)


def moving(network: Network) -> dict[str, torch.nn.Parameter]:
    """The parameters that require grad, by name; the distributions of hyper-parameters wait for who tunes them."""
    tuned = set() if network.hyper is None else set(network.hyper.parameters())
    return {name: p for name, p in network.named_parameters() if p.requires_grad and p not in tuned}


def priors(objective: Objective) -> list[Prior]:
    """The priors among an objective's terms."""
    terms = objective.terms if isinstance(objective, Extended) else ()
    return [term for term in terms if isinstance(term, Prior)]


def unspoken(network: Network, spoken: Sequence[Prior]) -> tuple[str, ...]:
    """The names of the moving parameters of which no prior speaks, without those that decline decay."""
    taken = {name for prior in spoken for name in prior.names}
    without = undecayed(network)
    return tuple(name for name, p in moving(network).items() if name not in taken and p not in without)
