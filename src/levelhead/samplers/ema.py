"""Exponential moving average of the weights: a calmer point than where the last step landed."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._around import Around
from levelhead.samplers._gradient import GradientState
from levelhead.samplers.sgd import SGD
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, CannotCompose, Reference, Scalar


@dataclass(frozen=True)
class EMA(Around):
    """average <- d average + (1 - d) weights after each step,  d = min(decay, (1 + steps) / (10 + steps)).

    Floating-point buffers (running statistics) are averaged too. The prediction uses the averages.
    decay in [0, 1); raises ValueError otherwise, and CannotCompose around samplers that predict with several weights.
    """

    reference: ClassVar = Reference(
        "Polyak & Juditsky", 1992, title="Acceleration of stochastic approximation by averaging"
    )
    inner: Sampler[Any] = field(default_factory=SGD)
    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA: decay must be in [0, 1), got {self.decay}")

    def init(self, network: Network, task: Task, run: Run) -> "EMAState":
        """See `Sampler.init`."""
        inner = self.inner.init(network, task, run)
        if not isinstance(inner, GradientState):
            raise CannotCompose(
                f"EMA averages the path of one gradient sampler, not {type(self.inner).__name__}; write "
                "EMA(inner=SGD()), and put SWAG and other wrappers around other inners"
            )
        return EMAState(inner)

    def step(self, state: "EMAState", objective: Objective, batch: Batch) -> Scalar:
        """One inner step, then the average."""
        loss = self.inner.step(state.inner, objective, batch)
        state.follow(self.decay)
        return loss

    def predictor(self, state: "EMAState") -> Predictor:
        """The inner predictor, at the averages."""
        state.network.load_state_dict(state.average)
        return self.inner.predictor(state.inner)


class EMAState:
    """The inner state and the averages."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.network: Network = inner.network
        self.average = {name: t.detach().clone() for name, t in self.network.state_dict().items()}
        self.done = 0

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the averages towards the present weights."""
        share = 1 - min(decay, (1 + self.done) / (10 + self.done))
        self.done += 1
        present: dict[str, Tensor] = self.network.state_dict()
        for name, tensor in present.items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, share)
            else:
                self.average[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """The inner state, the averages and the place."""
        return {"inner": self.inner.state_dict(), "average": self.average, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.inner.load_state_dict(state["inner"])
        self.average, self.done = state["average"], state["done"]
