"""Adversarial training: every step also sees the batch moved to where its loss is higher."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.forward import Forward, Objective, gradient
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Reference, Scalar


@dataclass(frozen=True)
class AdversarialTraining:
    """clean_weight * loss(x, y) + loss(x', y),  x' = x + eps_d * sign(grad_x loss(x, y)), detached.

    eps_d = eps * (max - min of input d over the training split): one for each feature of a table, one for each channel
    of images. The defaults are those of deep ensembles: eps = 0.01, one step, the plain sum of both losses. With
    clean_weight=0, eps=8/255, steps=10 and random_start it is the training of Madry et al. (arXiv 1706.06083).

    direction     "gradient", or "random" signs: the control ("Ensemble + R") of the paper.
    steps         sign steps, each of step_size * eps_d, projected onto the box after each.
    step_size     None: 1 for one step, 2.5 / steps otherwise.
    clamp         keep x' inside the training range of each input.

    The attack's passes replay the step's noise and move no statistic; the pass on x' is a training pass like any other.
    Raises ValueError for negative eps or weights, or steps < 1.
    """

    reference: ClassVar = Reference(
        "Goodfellow, Shlens & Szegedy", 2015, arxiv="1412.6572", title="Explaining and harnessing adversarial examples"
    )
    eps: float = 0.01
    clean_weight: float = 1.0
    direction: Literal["gradient", "random"] = "gradient"
    steps: int = 1
    step_size: float | None = None
    random_start: bool = False
    clamp: bool = False

    def __post_init__(self) -> None:
        if self.eps < 0 or self.clean_weight < 0:
            raise ValueError(f"AdversarialTraining: eps and clean_weight must not be negative, got {self}")
        if self.steps < 1:
            raise ValueError(f"AdversarialTraining: steps must be at least 1, got {self.steps}")
        if self.direction not in ("gradient", "random"):
            raise ValueError(f"AdversarialTraining: direction must be 'gradient' or 'random', got {self.direction!r}")

    def start(self, network: Network, task: Task, run: Run) -> "AdversarialTerm":
        """Measure the range of the training inputs."""
        low, high = input_range(task)
        return AdversarialTerm(self, low.to(run.device), high.to(run.device))


class AdversarialTerm:
    """Adversarial training over inputs of a known range."""

    def __init__(self, spec: AdversarialTraining, low: Tensor, high: Tensor) -> None:
        self.spec, self.low, self.high = spec, low, high

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on the clean batch and on the moved one."""
        moved = inner(forward.on(x=self.attacked(forward)))
        if self.spec.clean_weight == 0:
            return moved
        return self.spec.clean_weight * inner(forward) + moved

    def attacked(self, forward: Forward) -> Float[Tensor, "batch *input"]:
        """x', detached, never further than eps_d from x."""
        spec, x, y = self.spec, forward.batch.x.detach(), forward.batch.y
        low, high = self.low.to(x.dtype), self.high.to(x.dtype)
        eps = spec.eps * (high - low)
        size = spec.step_size if spec.step_size is not None else 1.0 if spec.steps == 1 else 2.5 / spec.steps
        moved = x + eps * (2 * torch.rand_like(x) - 1) if spec.random_start else x
        for _ in range(spec.steps):
            if spec.direction == "random":
                push = torch.randn_like(x).sign()
            else:
                push = gradient(lambda at: forward.network.likelihood.loss(forward.at(at), y), moved).sign()
            moved = torch.clamp(moved + size * eps * push, x - eps, x + eps)
            if spec.clamp:
                moved = torch.clamp(moved, low, high)
        return moved.detach()

    def end_epoch(self, network: Network) -> None:
        """Nothing happens between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember: the range is measured at start."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def input_range(task: Task) -> tuple[Float[Tensor, "dim *one"], Float[Tensor, "dim *one"]]:
    """Smallest and largest training input: of each channel of images (broadcasts over pixels), of each feature else."""
    x = task.train.x
    axes = (0, *range(2, x.ndim))
    low, high = x.amin(axes), x.amax(axes)
    if x.dtype == torch.uint8:
        low, high = low / 255, high / 255
    shape = (-1, *(1,) * (x.ndim - 2))
    return low.reshape(shape), high.reshape(shape)
