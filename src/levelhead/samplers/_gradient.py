"""What the gradient samplers share: schedule, clipping, mixed precision, and a state that checkpoints to the bit."""

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import nn

from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.parameter_groups import groups
from levelhead.predictor import Point, Predictor
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Scalar

Schedule = Literal["constant", "cosine", "step"]
Precision = Literal["float32", "bfloat16", "float16"]
STEP_MILESTONES, STEP_FACTOR = (0.3, 0.6, 0.8), 0.2  # 60, 120, 160 of 200 epochs (Zagoruyko & Komodakis, 1605.07146)


class GradientSpec(Protocol):
    """The fields every gradient sampler has."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def warmup_epochs(self) -> float: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def precision(self) -> Precision: ...


def validate(spec: GradientSpec) -> None:
    """Raise ValueError for settings that no training can use."""
    name = type(spec).__name__
    for field, value, low in (("epochs", spec.epochs, 0), ("batch_size", spec.batch_size, 1), ("lr", spec.lr, 0.0)):
        if value < low:
            raise ValueError(f"{name}: {field} must be at least {low}, got {value}")
    if spec.weight_decay < 0 or spec.warmup_epochs < 0:
        raise ValueError(f"{name}: weight_decay and warmup_epochs must not be negative")
    if spec.clip is not None and spec.clip <= 0:
        raise ValueError(f"{name}: clip must be positive or None, got {spec.clip}")
    if spec.schedule not in ("constant", "cosine", "step"):
        raise ValueError(f"{name}: schedule must be 'constant', 'cosine' or 'step', got {spec.schedule!r}")
    if spec.precision not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"{name}: precision must be 'float32', 'bfloat16' or 'float16', got {spec.precision!r}")


class GradientState:
    """A network, its optimiser, and how many steps were done of how many."""

    def __init__(self, network: Network, optimiser: torch.optim.Optimizer, steps_per_epoch: int, epochs: int) -> None:
        self.network = network
        self.optimiser = optimiser
        self.steps_per_epoch = steps_per_epoch
        self.total = steps_per_epoch * epochs
        self.done = 0
        self.scaler = torch.amp.GradScaler(network.device.type, enabled=False)
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers, optimiser and place."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.done = state["done"]


def start(
    spec: GradientSpec,
    network: Network,
    task: Task,
    run: Run,
    optimiser: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
) -> GradientState:
    """The state before the first step; moves the parameters that require grad now."""
    grouped = groups(network, lr=spec.lr, weight_decay=spec.weight_decay)
    state = GradientState(network, optimiser(grouped), task.train.num_batches(spec.batch_size), spec.epochs)
    state.scaler = torch.amp.GradScaler(network.device.type, enabled=spec.precision == "float16")
    return state


def descend(spec: GradientSpec, state: GradientState, objective: Objective, batch: Batch) -> Scalar:
    """One optimiser step on one batch; returns the objective before it."""
    factor = rate(spec, state.done, state.steps_per_epoch, state.total)
    for group in state.optimiser.param_groups:
        group["lr"] = spec.lr * group["scale"] * factor
    device = batch.x.device.type
    with torch.autocast(device, getattr(torch, spec.precision), enabled=spec.precision != "float32"):
        loss = objective(Forward(state.network, batch))
    state.optimiser.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    if spec.clip is not None:
        state.scaler.unscale_(state.optimiser)
        nn.utils.clip_grad_norm_(state.parameters, spec.clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.done += 1
    return loss.detach()


def rate(spec: GradientSpec, done: int, steps_per_epoch: int, total: int) -> float:
    """The factor on the learning rate for the step after `done` steps: linear warm-up, then the schedule."""
    warmup = spec.warmup_epochs * steps_per_epoch
    if done < warmup:
        return (done + 1) / (warmup + 1)
    share = (done - warmup) / max(total - warmup, 1)
    if spec.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if spec.schedule == "step":
        return STEP_FACTOR ** sum(share >= milestone for milestone in STEP_MILESTONES)
    return 1.0


def point(state: GradientState, noise: int = 0) -> Predictor:
    """The network as it now stands, as a predictor."""
    return Point(state.network, noise)
