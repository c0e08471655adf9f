"""Snapshot ensembles: one run that ends in several valleys, one after the other, and keeps what it finds in each."""

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
class Snapshot(Around):
    """M cycles of lr / 2 (1 + cos(pi t)), t from 0 to 1 in each; the weights at the end of every cycle are a member.

    The price of one run: the inner sampler's epochs are shared out among the cycles. Its own schedule gives way to the
    cycles; momentum is carried over from cycle to cycle. Running statistics are kept with their weights.

    inner        the gradient sampler; the paper starts cycles at a high rate (0.1 to 0.2).
    cycles       M. The paper has 5 or 6, of some 40 epochs.
    num_members  of the cycles' ends, the last so many; None for all.

    Raises CannotCompose around samplers that wrap others. Huang et al., arXiv 1704.00109.
    """

    reference: ClassVar = Reference(
        "Huang, Li, Pleiss, Liu, Hopcroft & Weinberger",
        2017,
        arxiv="1704.00109",
        title="Snapshot Ensembles: Train 1, Get M for Free",
    )
    inner: Sampler[Any] = field(default_factory=lambda: SGD(epochs=20, lr=0.1))
    cycles: int = 5
    num_members: int | None = None

    def __post_init__(self) -> None:
        if self.cycles < 1:
            raise ValueError(f"Snapshot: cycles must be at least 1, got {self.cycles}")
        if self.num_members is not None and not 1 <= self.num_members <= self.cycles:
            raise ValueError(f"Snapshot: num_members must be from 1 to cycles={self.cycles}, got {self.num_members}")

    def init(self, network: Network, task: Task, run: Run) -> VisitsState:
        """See `Sampler.init`."""
        return VisitsState(gradient_state(self.inner.init(network, task, run), "Snapshot"))

    def step(self, state: VisitsState, objective: Objective, batch: Batch) -> Scalar:
        """One inner step at the cycle's rate; keeps the weights at the end of a cycle."""
        ends = [round((k + 1) * state.inner.total / self.cycles) for k in range(self.cycles)]
        cycle = next(k for k, end in enumerate(ends) if state.done < end)
        first = ends[cycle - 1] if cycle else 0
        whole, state.inner.total = state.inner.total, ends[cycle] - first
        state.inner.done = state.done - first
        loss = replace(self.inner, schedule="cosine", warmup_epochs=0.0).step(state.inner, objective, batch)  # type: ignore[type-var]
        state.inner.total = whole
        state.done += 1
        if state.done == ends[cycle]:
            state.keep(self.num_members or self.cycles)
        return loss

    def predictor(self, state: VisitsState) -> Predictor:
        """The mixture over the ends of the cycles."""
        return state.predictor() if state.kept else self.inner.predictor(state.inner)
