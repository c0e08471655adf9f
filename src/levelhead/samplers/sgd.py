"""Stochastic gradient descent with momentum: the point estimate that every comparison starts from."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._gradient import GradientState, Precision, Schedule, descend, point, start, validate
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Reference, Scalar


@dataclass(frozen=True)
class SGD:
    """v <- momentum v + g + weight_decay w;  w <- w - lr v  (Nesterov's form on request).

    epochs          passes over the training split.
    batch_size      rows a step.
    lr              peak learning rate; `schedule` takes it from there after `warmup_epochs` of linear growth.
    weight_decay    coupled L2, on every parameter whose layer does not decline it.
    clip            largest global gradient norm, or None.
    precision       of the forward pass; weights stay in float32.
    """

    reference: ClassVar = Reference("Robbins & Monro", 1951, title="A stochastic approximation method")
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    clip: float | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        validate(self)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"SGD: momentum must be in [0, 1), got {self.momentum}")

    def init(self, network: Network, task: Task, run: Run) -> GradientState:
        """See `Sampler.init`."""
        return start(
            self,
            network,
            task,
            run,
            lambda groups: torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov),
        )

    def step(self, state: GradientState, objective: Objective, batch: Batch) -> Scalar:
        """See `Sampler.step`."""
        return descend(self, state, objective, batch)

    def predictor(self, state: GradientState) -> Predictor:
        """The last weights, as a point."""
        return point(state)
