"""Adversarial training: every step also sees the batch moved to where its loss is higher."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.adversarial.steps import AttackMode, check_attack_mode, climb, uphill
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Reference, Scalar


@dataclass(frozen=True)
class AdversarialTraining:
    """clean_weight * loss(x, y) + loss(x', y),  x' = x + eps_d * sign(grad_x loss(x, y)), detached.

    With `replaced`, one loss of a mixed batch instead: that share of its rows moved, the others as they are.

    eps_d = eps * (max - min of input d over the training split): one for each feature of a table, one for each channel
    of images. The defaults are those of deep ensembles: eps = 0.01, one step, the plain sum of both losses. With
    clean_weight=0, eps=8/255, steps=10 and random_start it is the training of Madry et al. (arXiv 1706.06083).

    direction     "gradient", or "random" signs: the control ("Ensemble + R") of the paper.
    steps         sign steps, each of step_size * eps_d, projected onto the box after each.
    step_size     None: 1 for one step, 2.5 / steps otherwise.
    clamp         keep x' inside the training range of each input.
    replaced      the share of each batch, spread evenly, whose moved form stands in its place; only these rows are
                  attacked. 0.5 is the training of "Aliasing is a driver of adversarial attacks" (arXiv 2212.11760),
                  with attack_mode="eval", eps=8/255, steps=7, step_size=0.25, random_start and clamp.
    attack_mode   "side": the attack's passes replay the step's noise and move no statistic; "train": they are training
                  passes, which draw anew and move statistics; "eval": they see the network as it predicts.

    The pass on x' is a training pass like any other. `fgsm_training` is the form of one step from a random start, with
    a guard against its collapse. Raises ValueError for negative eps or weights, steps < 1, a share outside (0, 1], or
    a clean_weight that a mixed batch would not use.
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
    replaced: float | None = None
    attack_mode: AttackMode = "side"

    def __post_init__(self) -> None:
        if self.eps < 0 or self.clean_weight < 0:
            raise ValueError(f"AdversarialTraining: eps and clean_weight must not be negative, got {self}")
        if self.steps < 1:
            raise ValueError(f"AdversarialTraining: steps must be at least 1, got {self.steps}")
        if self.direction not in ("gradient", "random"):
            raise ValueError(f"AdversarialTraining: direction must be 'gradient' or 'random', got {self.direction!r}")
        if self.replaced is not None and not 0 < self.replaced <= 1:
            raise ValueError(f"AdversarialTraining: replaced wants a share in (0, 1], or None, got {self.replaced}")
        if self.replaced is not None and self.clean_weight != 1:
            raise ValueError(
                f"AdversarialTraining: a mixed batch has one loss, so clean_weight={self.clean_weight} would have no "
                "effect; leave it, or leave out replaced"
            )
        check_attack_mode("AdversarialTraining", self.attack_mode)

    def start(self, network: Network, task: Task, run: Run) -> "AdversarialTerm":
        """Measure the range of the training inputs."""
        low, high = input_range(task)
        return AdversarialTerm(self, low.to(run.device), high.to(run.device))


class AdversarialTerm:
    """Adversarial training over inputs of a known range."""

    def __init__(self, spec: AdversarialTraining, low: Tensor, high: Tensor) -> None:
        self.spec, self.low, self.high = spec, low, high

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on the clean batch and on the moved one, or on a mixture of both."""
        if self.spec.replaced is not None:
            return inner(forward.on(x=self.mixed(forward, self.spec.replaced)))
        moved = inner(forward.on(x=self.attacked(forward)))
        if self.spec.clean_weight == 0:
            return moved
        return self.spec.clean_weight * inner(forward) + moved

    def attacked(self, forward: Forward) -> Float[Tensor, "batch *input"]:
        """x', detached, never further than eps_d from x."""
        spec, x = self.spec, forward.batch.x.detach()
        low, high = self.low.to(x.dtype), self.high.to(x.dtype)
        eps = spec.eps * (high - low)
        size = spec.step_size if spec.step_size is not None else 1.0 if spec.steps == 1 else 2.5 / spec.steps
        start = x + eps * (2 * torch.rand_like(x) - 1) if spec.random_start else None
        push = uphill(forward, spec.attack_mode) if spec.direction == "gradient" else _random_signs
        bounds = (low, high) if spec.clamp else None
        return climb(x, push, eps=eps, size=size * eps, steps=spec.steps, start=start, bounds=bounds)

    def mixed(self, forward: Forward, share: float) -> Float[Tensor, "batch *input"]:
        """x with a share of its rows moved, evenly spread: of each member's too, where members have rows of their own.

        Rows that can be taken out of the batch are attacked alone; else all are, and the others put back.
        """
        batch = forward.batch
        x = batch.x.detach()
        chosen = spread(len(x), share).to(x.device)
        if not len(chosen):
            return x
        alone = batch.hyper is None and not batch.per_member and not _of_members(batch, forward.network.num_members)
        if alone:
            part = forward.on(x=x[chosen], y=batch.y[chosen], index=batch.index[chosen])
            return x.index_copy(0, chosen, self.attacked(part))
        return x.index_copy(0, chosen, self.attacked(forward)[chosen])

    def end_epoch(self, network: Network) -> None:
        """Nothing happens between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember: the range is measured at start."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def spread(n: int, share: float) -> Int[Tensor, " chosen"]:
    """floor(n * share) of n places, evenly spread."""
    counts = torch.floor(torch.arange(n + 1, dtype=torch.float64) * share + 1e-9)  # 0.1 * 10 must count as 1
    return torch.nonzero(counts[1:] > counts[:-1])[:, 0]


def _of_members(batch: Batch, num_members: int) -> bool:
    """Whether y has an axis of members in front, so that its first axis is not the batch's."""
    return tuple(batch.y.shape[:2]) == (num_members, len(batch.x)) and batch.y.ndim > 1


def _random_signs(x: Tensor) -> Tensor:
    return torch.randn_like(x).sign()


def input_range(task: Task) -> tuple[Float[Tensor, "dim *one"], Float[Tensor, "dim *one"]]:
    """Smallest and largest training input: of each channel of images (broadcasts over pixels), of each feature else."""
    x = task.train.x
    axes = (0, *range(2, x.ndim))
    low, high = x.amin(axes), x.amax(axes)
    if x.dtype == torch.uint8:
        low, high = low / 255, high / 255
    shape = (-1, *(1,) * (x.ndim - 2))
    return low.reshape(shape), high.reshape(shape)
