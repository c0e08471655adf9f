"""Markov chains side by side: where each one is on its trajectory, what was accepted, what is kept, how they agree."""

import math
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor

from levelhead.forward import Objective
from levelhead.metrics.chains import ess, rhat
from levelhead.network import Network
from levelhead.predictor import WeightSamples
from levelhead.samplers._agreement import MIN_DRAWS, agreement, watched_rows
from levelhead.samplers._trajectory import Place, Posterior, StepSize, change, leap, moving
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Scalar

GROWTH = 1.2  # of trajectories, from one iteration of the burn-in to the next
DIVERGED = 1000.0  # nats of energy that a trajectory of a sensible step size does not gain
PLAIN = (
    *("done", "place", "length", "step_now", "tried", "momenta"),
    *("kept", "energies", "accepted", "probability", "divergences"),
)  # of a state, what is stored as it is


class ChainSpec(Protocol):
    """The fields of HMC."""

    @property
    def epochs(self) -> int: ...
    @property
    def chains(self) -> int: ...
    @property
    def prior_scale(self) -> float | None: ...
    @property
    def temperature(self) -> float: ...
    @property
    def trajectory(self) -> float: ...
    @property
    def jitter(self) -> float: ...
    @property
    def step_size(self) -> float: ...
    @property
    def target_acceptance(self) -> float | None: ...
    @property
    def burn_in(self) -> float: ...
    @property
    def num_draws(self) -> int: ...


class ChainsState:
    """The chains of one fit. A step is one leapfrog step of each: a killed run goes on in mid-trajectory."""

    def __init__(self, spec: ChainSpec, network: Network, task: Task, run: Run) -> None:
        self.spec, self.network = spec, network
        self.num_rows = len(task.train)
        self.watched = watched_rows(task, run)
        self.first = int(spec.burn_in * spec.epochs)  # epochs of the burn-in
        self.potential: Posterior | None = None
        self.done = 0
        self.step_size = StepSize(spec.step_size, spec.target_acceptance or 0.5)
        self.starts = [Place(weights, {}, torch.zeros(())) for weights in shuffled_starts(network, spec.chains, run)]
        self.ends = list(self.starts)
        self.momenta: list[tuple[dict[str, Tensor], Any]] = []  # of each chain: at the start of its trajectory, and now
        self.place, self.length, self.step_now = 0, 0, spec.step_size
        self.tried = 0  # trajectories of the burn-in
        self.kept: list[list[dict[str, Tensor]]] = []  # a list over draws of what the chains hold
        self.energies: list[Tensor] = []  # after each iteration, of the chains
        self.accepted, self.probability = torch.zeros(spec.chains), 0.0
        self.divergences = 0

    def step(self, objective: Objective, batch: Batch) -> Scalar:
        """See `HMC.step`."""
        if self.potential is None:
            spec = self.spec
            self.potential = Posterior(
                self.network,
                objective,
                batch,
                prior_scale=spec.prior_scale,
                temperature=spec.temperature,
                num_rows=self.num_rows,
            )
        if not self.momenta:  # the very first step looks where the chains stand
            self.starts = [self.potential.at(start.weights) for start in self.starts]
            self.done += 1
            self._begin()
            return self.loss
        self.potential.batch = batch
        for chain, (before, now) in enumerate(self.momenta):
            self.ends[chain], now = leap(self.potential, self.ends[chain], now, self.step_now)
            self.momenta[chain] = (before, now)
        self.place += 1
        self.done += 1
        if self.place == self.length:
            self._finish(self.potential)
        return self.loss

    @property
    def loss(self) -> Scalar:
        """The mean objective of the states last accepted."""
        energy = torch.stack([start.energy for start in self.starts]).mean()
        return (energy * (self.spec.temperature / self.num_rows)).float()

    @property
    def burning(self) -> bool:
        """Whether this is the burn-in."""
        return self.done < self.first

    def _begin(self) -> None:
        """Draw the length of the next trajectory and momenta, from torch's global stream."""
        spec, adapted = self.spec, self.spec.target_acceptance is not None
        self.step_now = spec.step_size
        if adapted:
            self.step_now = self.step_size.step if self.burning else self.step_size.settled
        jitter = 1 + spec.jitter * (2 * float(torch.rand(())) - 1)
        length = max(1, round(jitter * spec.trajectory / self.step_now))
        left = (self.first if self.burning else spec.epochs) - self.done
        if self.burning:
            length = min(length, math.ceil(GROWTH**self.tried))
        self.place, self.length = 0, max(1, min(length, left))
        self.ends = list(self.starts)
        drawn = [{name: torch.randn_like(w) for name, w in start.weights.items()} for start in self.starts]
        self.momenta = [(momentum, momentum) for momentum in drawn]

    def _finish(self, potential: Posterior) -> None:
        """Accept or reject the trajectories' ends, learn the step size, keep draws; then begin the next."""
        gains = [
            change(potential, start, before, end, now)
            for start, end, (before, now) in zip(self.starts, self.ends, self.momenta, strict=True)
        ]
        gain = torch.stack(gains).cpu()
        accept = torch.rand(len(gain), dtype=torch.float64).log() < -gain
        self.starts = [
            end if yes else start for start, end, yes in zip(self.starts, self.ends, accept.tolist(), strict=True)
        ]
        probability = float((-gain).clamp_max(0).exp().mean())
        burnt = self.done - self.length >= self.first  # the trajectory began after the burn-in
        if burnt:
            self.accepted += accept
            self.probability += probability
            self.divergences += int((gain > DIVERGED).sum())
            self._keep(potential)
        else:
            self.tried += 1
            if self.spec.target_acceptance is not None:
                self.step_size.hear(probability)
        self._begin()

    def _keep(self, potential: Posterior) -> None:
        """Count an iteration; keep its states where one of the draws is due."""
        self.energies.append(torch.stack([potential.total(start) for start in self.starts]).cpu())
        epochs = self.spec.epochs - self.first

        def draws_by(done: int) -> int:
            return (done - self.first) * self.spec.num_draws // epochs

        if draws_by(self.done) > draws_by(self.done - self.length):
            self.kept.append([dict(start.weights) for start in self.starts])

    def predictor(self) -> WeightSamples:
        """The mixture over the draws of all chains; where none was kept, over where the chains stand."""
        kept = self.kept or [[dict(start.weights) for start in self.starts]]
        with torch.no_grad():
            for name, parameter in moving(self.network).items():
                parameter.copy_(kept[-1][0][name])
        draws = [moment[chain] for chain in range(self.spec.chains) for moment in kept]
        stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
        mixture = WeightSamples(self.network, stacked, num_chains=self.spec.chains)
        mixture.diagnostics = self.diagnostics(mixture)
        return mixture

    def diagnostics(self, mixture: WeightSamples) -> dict[str, float]:
        """What the run has to say for itself.

        iterations, leapfrogs (a trajectory), step_size, acceptance (share), acceptance_probability (mean), divergences;
        rhat_energy and ess_energy of U over all iterations; rhat (largest) and ess (least), with their medians, of the
        log likelihoods of validation rows over the draws kept. What four draws a chain are too few for is left out.
        """
        iterations = len(self.energies)
        if not iterations:
            return {"iterations": 0.0}
        found = {
            "iterations": float(iterations),
            "leapfrogs": max(1.0, round(self.spec.trajectory / self.step_now)),
            "step_size": self.step_now,
            "acceptance": float(self.accepted.mean()) / iterations,
            "acceptance_probability": self.probability / iterations,
            "divergences": float(self.divergences),
        }
        if iterations >= MIN_DRAWS:
            energies = torch.stack(self.energies, dim=1)
            found |= {"rhat_energy": float(rhat(energies)), "ess_energy": float(ess(energies))}
        found |= agreement(mixture, self.watched)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs, and what was kept."""
        return {
            **{name: getattr(self, name) for name in PLAIN},
            "starts": [place._asdict() for place in self.starts],
            "ends": [place._asdict() for place in self.ends],
            "step_size": asdict(self.step_size),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for name in PLAIN:
            setattr(self, name, state[name])
        self.accepted = self.accepted.cpu()  # a checkpoint is read onto the device of the weights
        self.energies = [energies.cpu() for energies in self.energies]
        self.starts = [Place(**place) for place in state["starts"]]
        self.ends = [Place(**place) for place in state["ends"]]
        self.step_size = StepSize(**state["step_size"])


def shuffled_starts(network: Network, chains: int, run: Run) -> list[dict[str, Tensor]]:
    """Where chains start: at the network as it is, and at its numbers in another order, tensor by tensor.

    Of the usual initialisations that is a fresh draw; what all elements share (1 of a norm's scales) stays.
    """
    found = [{name: p.detach().clone() for name, p in moving(network).items()}]
    for chain in range(1, chains):
        generator = run.generator("chain", chain)
        found.append(
            {
                name: p.detach().flatten()[torch.randperm(p.numel(), generator=generator).to(p.device)].view_as(p)
                for name, p in moving(network).items()
            }
        )
    return found
