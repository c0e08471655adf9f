"""AdamW: adaptive gradient descent with decoupled weight decay."""

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
class AdamW:
    """w <- w - lr (m / (sqrt(v) + eps) + weight_decay w), m and v the debiased moments of the gradient.

    Fields as in SGD; beta1 and beta2 are the decay rates of the moments. weight_decay=0 is Adam.
    """

    reference: ClassVar = Reference("Loshchilov & Hutter", 2019, arxiv="1711.05101")
    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-2
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    clip: float | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        validate(self)
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"AdamW: {name} must be in [0, 1), got {value}")

    def init(self, network: Network, task: Task, run: Run) -> GradientState:
        """See `Sampler.init`."""
        betas = (self.beta1, self.beta2)
        return start(
            self, network, task, run, lambda groups: torch.optim.AdamW(groups, lr=self.lr, betas=betas, eps=self.eps)
        )

    def step(self, state: GradientState, objective: Objective, batch: Batch) -> Scalar:
        """See `Sampler.step`."""
        return descend(self, state, objective, batch)

    def predictor(self, state: GradientState) -> Predictor:
        """The last weights, as a point."""
        return point(state)
