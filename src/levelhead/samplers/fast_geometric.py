"""Fast geometric ensembles: after one ordinary run, short cycles along a path of low loss."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._around import Around
from levelhead.samplers._visits import VisitsState, gradient_state
from levelhead.samplers.sgd import SGD
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, Reference, Scalar


@dataclass(frozen=True)
class FastGeometric(Around):
    """An ordinary run, then cycles in which the rate falls from `high` to `low` and rises again; kept in each middle.

    In a cycle of c steps, t = (i mod c + 1) / c for step i:  lr = (1 - 2 t) high + 2 t low for t <= 1/2, and
    (2 - 2 t) low + (2 t - 1) high after that.

    inner         the gradient sampler. Its schedule runs over the first `ordinary` share of its epochs, as if it ended
                  there.
    ordinary      share of the epochs before the cycles (the paper: 80 % of a budget).
    cycle_epochs  c, in epochs: 2 to 4.
    high, low     as shares of the inner sampler's rate: 0.5 and 0.005 are the paper's 5e-2 and 5e-4 of 0.1.
    num_members   at most so many, the last ones; the first is what the ordinary run ended in.

    Statistics of norms are kept with the weights. Raises CannotCompose around samplers that wrap others.
    Garipov et al., arXiv 1802.10026.
    """

    reference: ClassVar = Reference(
        "Garipov, Izmailov, Podoprikhin, Vetrov & Wilson",
        2018,
        arxiv="1802.10026",
        title="Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
    )
    inner: Sampler[Any] = field(default_factory=lambda: SGD(epochs=20))
    ordinary: float = 0.8
    cycle_epochs: float = 2.0
    high: float = 0.5
    low: float = 0.005
    num_members: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.ordinary < 1:
            raise ValueError(f"FastGeometric: ordinary must be in [0, 1), got {self.ordinary}")
        if self.cycle_epochs <= 0:
            raise ValueError(f"FastGeometric: cycle_epochs must be positive, got {self.cycle_epochs}")
        if not 0 <= self.low <= self.high:
            raise ValueError(f"FastGeometric: wants 0 <= low <= high, got low={self.low} and high={self.high}")
        if self.num_members < 1:
            raise ValueError(f"FastGeometric: num_members must be at least 1, got {self.num_members}")

    def init(self, network: Network, task: Task, run: Run) -> VisitsState:
        """See `Sampler.init`."""
        return VisitsState(gradient_state(self.inner.init(network, task, run), "FastGeometric"))

    def step(self, state: VisitsState, objective: Objective, batch: Batch) -> Scalar:
        """One inner step, at the cycle's rate once the ordinary run is over; keeps the weights in mid-cycle."""
        whole = state.inner.total
        ordinary = round(self.ordinary * whole)
        if state.done < ordinary:
            state.inner.total, state.inner.done = ordinary, state.done
            loss = self.inner.step(state.inner, objective, batch)
            middle = state.done + 1 == ordinary
        else:
            cycle = max(2, round(self.cycle_epochs * state.inner.steps_per_epoch))
            place = (state.done - ordinary) % cycle + 1
            changes = {"lr": self.inner.lr * self.factor(place / cycle), "schedule": "constant", "warmup_epochs": 0.0}  # type: ignore[attr-defined]
            loss = replace(self.inner, **changes).step(state.inner, objective, batch)  # type: ignore[type-var]
            middle = place == cycle // 2
        state.inner.total = whole
        state.done += 1
        if middle:
            state.keep(self.num_members)
        return loss

    def factor(self, t: float) -> float:
        """The share of the inner rate at place t of a cycle, in (0, 1]."""
        if t <= 0.5:
            return (1 - 2 * t) * self.high + 2 * t * self.low
        return (2 - 2 * t) * self.low + (2 * t - 1) * self.high

    def predictor(self, state: VisitsState) -> Predictor:
        """The mixture over the moments kept; the last weights where the run was too short for one."""
        return state.predictor() if state.kept else self.inner.predictor(state.inner)
