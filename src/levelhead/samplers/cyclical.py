"""Cyclical SG-MCMC: warm restarts of the rate find modes one after the other, small noisy steps sample each."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._around import Around
from levelhead.samplers._langevin import LangevinState, advance, due, visited
from levelhead.samplers.sghmc import SGHMC
from levelhead.samplers.sgld import SGLD
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, CannotCompose, Reference, Scalar


@dataclass(frozen=True)
class Cyclical(Around):
    """lr_k = lr / 2 (cos(pi r) + 1), r = mod(k - 1, C) / C in each cycle of C = ceil(K / M) of the K steps.

    Without noise (temperature 0) while r < 1 - noisy: exploration; from there on with the inner temperature, and the
    draws of a cycle are kept, evenly spread, the last at its end.

    inner   SGLD or SGHMC. Its rate is where cycles start, its epochs are shared out among them; burn_in, num_draws and
            schedule give way. Of its temperature, 1 is Bayes' rule; the authors' code has 1 / N by default, which is
            next to no noise.
    cycles  M.
    draws   kept a cycle.
    noisy   share of a cycle with noise; the paper's 5 of 50 epochs.

    Raises CannotCompose around other samplers. Zhang et al., arXiv 1902.03932.
    """

    reference: ClassVar = Reference(
        "Zhang, Li, Zhang, Chen & Wilson",
        2020,
        arxiv="1902.03932",
        title="Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning",
    )
    inner: Sampler[Any] = field(default_factory=lambda: SGHMC(epochs=200, batch_size=64, lr=0.5, momentum=0.1))
    cycles: int = 4
    draws: int = 3
    noisy: float = 0.1

    def __post_init__(self) -> None:
        if self.cycles < 1 or self.draws < 1:
            raise ValueError(f"Cyclical: cycles and draws must be at least 1, got {self.cycles} and {self.draws}")
        if not 0 < self.noisy <= 1:
            raise ValueError(f"Cyclical: noisy must be in (0, 1], got {self.noisy}")

    def init(self, network: Network, task: Task, run: Run) -> LangevinState:
        """See `Sampler.init`."""
        langevin(self.inner)
        state: LangevinState = self.inner.init(network, task, run)
        return state

    def step(self, state: LangevinState, objective: Objective, batch: Batch) -> Scalar:
        """One inner step at the cycle's rate, with noise in the last part of the cycle."""
        inner, total = langevin(self.inner), state.inner.total
        length = math.ceil(total / self.cycles)
        cycle, place = divmod(state.done, length)
        quiet = min(math.ceil((1 - self.noisy) * length), length - 1)
        temperature = inner.temperature if place >= quiet else 0.0
        now = replace(inner, lr=inner.lr * rate(place / length), temperature=temperature, schedule="constant")
        loss = advance(now, state, objective, batch)
        last = min((cycle + 1) * length, total)
        first = min(cycle * length + quiet, last - 1)
        if due(state.done, first, last, self.draws):
            state.keep(self.cycles * self.draws)
        return loss

    def predictor(self, state: LangevinState) -> Predictor:
        """The mixture over the draws of all cycles."""
        return visited(state)


def rate(r: float) -> float:
    """The share of the first rate at place r of a cycle, in (0, 1]."""
    return 0.5 * (math.cos(math.pi * r) + 1)


def langevin(inner: Any) -> SGLD | SGHMC:
    """The inner sampler. Raises CannotCompose for another kind."""
    if not isinstance(inner, SGLD | SGHMC):
        raise CannotCompose(
            f"Cyclical turns the rate and the noise of SGLD or SGHMC, and {type(inner).__name__} has no noise to turn; "
            "write Cyclical(inner=SGHMC()), or Snapshot(inner=SGD()) for cycles without noise"
        )
    return inner
