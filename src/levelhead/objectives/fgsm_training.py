"""Single-step adversarial training, watched for the collapse that it is known for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.adversarial.overfitting import check_drop, detect_catastrophic_overfitting, hits
from levelhead.adversarial.steps import AttackMode, check_attack_mode, climb, uphill
from levelhead.forward import Forward, Objective, Stateless, Term
from levelhead.likelihood import Categorical
from levelhead.network import Network
from levelhead.probe import evaluating
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose, Reference, Scalar

Init = Literal["uniform", "zero"]
Guard = Literal["stop", "log", "off"]


@dataclass(frozen=True)
class FGSMTraining:
    """loss(x', y) in place of loss(x, y),  x' = Pi(x0 + alpha * sign(grad_x loss(x0, y))), detached.

    x0 = x + U(-eps, eps), Pi back into the box of eps around x and into the bounds. One gradient for the attack and one
    for the weights: twice the cost of plain training. Against the tenfold cost of training on attacks of ten steps it
    stands with the danger of catastrophic overfitting, which `guard` watches for.

    eps, alpha   radius and step, in the units of x (pixels in [0, 1]).
    init         "uniform" in the box, or "zero": at x itself, the classic form, which collapses sooner.
    bounds       of the inputs; None: nowhere. Pixels are in [0, 1].
    attack_mode  "train": the attack's pass is a training pass that moves statistics, as in the reference; "side": with
                 the step's own noise and no statistic moved; "eval": on the network as it predicts.
    guard        at the end of each epoch, accuracy under an attack of `guard_steps` steps of eps / 4 on `guard_rows`
                 training rows, the same each time. "log" writes it and the accuracy on the epoch's own x' into the
                 fit's log, as `pgd_accuracy` and `fgsm_accuracy`; "stop" ends the fit, too, after the first epoch that
                 falls more than `guard_drop` below the one before, and gives back the weights of the one before
                 (samplers that average or collect weights have met the collapsed ones by then). "off": no such attack.

    The accuracies are of labels, and of each member. Raises ValueError for settings without sense; CannotCompose where
    a guard is wanted and there are no labels, or training inputs lie outside the bounds.
    """

    reference: ClassVar = Reference(
        "Wong, Rice & Kolter",
        2020,
        arxiv="2001.03994",
        title="Fast is better than free: revisiting adversarial training",
    )
    eps: float = 8 / 255
    alpha: float = 10 / 255
    init: Init = "uniform"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    attack_mode: AttackMode = "train"
    guard: Guard = "stop"
    guard_drop: float = 0.2
    guard_steps: int = 5
    guard_rows: int = 128

    def __post_init__(self) -> None:
        if self.eps < 0 or self.alpha < 0:
            raise ValueError(f"FGSMTraining: eps and alpha must not be negative, got {self.eps} and {self.alpha}")
        if self.init not in get_args(Init):
            raise ValueError(f"FGSMTraining: init must be 'uniform' or 'zero', got {self.init!r}")
        if self.guard not in get_args(Guard):
            raise ValueError(f"FGSMTraining: guard must be 'stop', 'log' or 'off', got {self.guard!r}")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"FGSMTraining: bounds wants a lower and a higher number, or None, got {self.bounds}")
        if self.guard_steps < 1 or self.guard_rows < 1:
            raise ValueError(f"FGSMTraining: guard_steps and guard_rows must be at least 1, got {self}")
        check_attack_mode("FGSMTraining", self.attack_mode)
        check_drop("FGSMTraining", self.guard_drop)

    def start(self, network: Network, task: Task, run: Run) -> Term:
        """The term of one fit, with the rows that its guard attacks."""
        if self.bounds is not None:
            low, high = extremes(task)
            if low < self.bounds[0] or high > self.bounds[1]:
                raise CannotCompose(
                    f"FGSMTraining: training inputs lie in [{low:g}, {high:g}], outside the bounds {self.bounds}; give "
                    "their own bounds, or write bounds=None"
                )
        if self.guard == "off":
            return _Attacking(self)
        if not isinstance(network.likelihood, Categorical):
            raise CannotCompose("FGSMTraining: its guard counts right labels, and here are none; write guard='off'")
        return _Guarded(self, task, run)

    def attacked(self, forward: Forward) -> Float[Tensor, "batch *input"]:
        """x', detached."""
        x = forward.batch.x.detach()
        start = x + self.eps * (2 * torch.rand_like(x) - 1) if self.init == "uniform" else None
        push = uphill(forward, self.attack_mode)
        return climb(x, push, eps=self.eps, size=self.alpha, steps=1, start=start, bounds=self.bounds)


class _Attacking(Stateless):
    """The training alone."""

    def __init__(self, spec: FGSMTraining) -> None:
        self.spec = spec

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on the moved batch."""
        return inner(forward.on(x=self.spec.attacked(forward)))


class _Guarded:
    """The training, both accuracies of each epoch, and the weights of the last one in good health."""

    def __init__(self, spec: FGSMTraining, task: Task, run: Run) -> None:
        self.spec, self.run = spec, run
        shuffled = torch.randperm(len(task.train), generator=run.generator("fgsm_training", "rows"))
        self.rows = task.train.take(shuffled[: spec.guard_rows].sort().values)
        self.right = torch.zeros((), dtype=torch.long)
        self.counted = torch.zeros((), dtype=torch.long)
        self.single_step: list[float] = []
        self.robust: list[float] = []
        self.healthy: dict[str, Tensor] | None = None

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on the moved batch, on which labels are counted."""
        moved = forward.on(x=self.spec.attacked(forward))
        right, counted = hits(moved.outputs.detach(), moved.batch.y, void=forward.network.likelihood.void)
        self.right, self.counted = self.right.to(right.device) + right, self.counted.to(right.device) + counted
        return inner(moved)

    def end_epoch(self, network: Network) -> None:
        """Attack the rows of the guard; where the accuracy collapsed, put back the weights from before."""
        if self.finished:
            return
        if int(self.counted):
            self.single_step.append(int(self.right) / int(self.counted))
        self.right, self.counted = torch.zeros_like(self.right), torch.zeros_like(self.counted)
        self.robust.append(self.robust_accuracy(network))
        if self.spec.guard != "stop":
            return
        if self.collapsed:
            assert self.healthy is not None, "a fall has an epoch before it"
            network.load_state_dict(self.healthy)
        else:
            self.healthy = {name: t.detach().clone() for name, t in network.state_dict().items()}

    def robust_accuracy(self, network: Network) -> float:
        """Of the network as it predicts, on the guard's rows, after some steps of eps / 4 from a random start."""
        spec = self.spec
        batch = self._batch()
        # numbers of its own: the guard must not change what the fit draws
        noise = torch.rand(batch.x.shape, generator=self.run.generator("fgsm_training", "guard"))
        start = batch.x + spec.eps * (2 * noise.to(batch.x) - 1)
        push = uphill(Forward(network, batch), "eval")
        moved = climb(
            batch.x, push, eps=spec.eps, size=spec.eps / 4, steps=spec.guard_steps, start=start, bounds=spec.bounds
        )
        with evaluating(network), torch.no_grad():
            right, counted = hits(network(moved), batch.y, void=network.likelihood.void)
        return int(right) / max(int(counted), 1)

    @property
    def collapsed(self) -> bool:
        """Whether some epoch fell too far below the one before."""
        return detect_catastrophic_overfitting(self.robust, self.spec.guard_drop) is not None

    @property
    def watched(self) -> Mapping[str, float]:
        """See `Watching`."""
        found = {"fgsm_accuracy": self.single_step, "pgd_accuracy": self.robust}
        return {name: history[-1] for name, history in found.items() if history}

    @property
    def finished(self) -> bool:
        """See `Watching`."""
        return self.spec.guard == "stop" and self.collapsed

    def state_dict(self) -> dict[str, Any]:
        """The histories, this epoch's counts, and the healthy weights."""
        return {
            "right": self.right,
            "counted": self.counted,
            "single_step": list(self.single_step),
            "robust": list(self.robust),
            "healthy": self.healthy,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.right, self.counted = state["right"], state["counted"]
        self.single_step, self.robust = list(state["single_step"]), list(state["robust"])
        self.healthy = state["healthy"]

    def _batch(self) -> Batch:
        return next(self.rows.ordered(len(self.rows))).to(self.run.device, self.run.runtime.dtype)


def extremes(task: Task) -> tuple[float, float]:
    """The smallest and the largest number among the training inputs; pixels kept as bytes count in [0, 1]."""
    x = task.train.x
    if x.dtype == torch.uint8:
        return 0.0, 1.0
    return float(x.min()), float(x.max())
