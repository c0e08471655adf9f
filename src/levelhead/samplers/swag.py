"""SWAG: a Gaussian fitted to the weights that SGD visits late in training."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from levelhead.declared import KeepsStatistics
from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor, WeightSamples
from levelhead.samplers._around import Around
from levelhead.samplers._gradient import GradientState
from levelhead.samplers.sgd import SGD
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, CannotCompose, Reference, Scalar

MIN_VARIANCE = 1e-30  # the difference of two running moments may round below zero


@dataclass(frozen=True)
class SWAG(Around):
    """w = mean + scale (sigma z1 / sqrt 2 + D z2 / sqrt(2 (K - 1))),  z1, z2 ~ N(0, I).

    mean and sigma^2 are running moments of the weights, D the last K = `rank` deviations from the running mean; all
    taken once an epoch over the last `collect` share of the epochs. `rank=0` is SWAG-Diagonal (then z1 is not halved)
    and `num_draws=0` is SWA: the mean alone. Layers with running statistics get fresh ones for every draw, from one
    pass over the training split.

    inner      the sampler whose path is followed; the paper holds its learning rate high ("constant") while collecting.
    num_draws  weights drawn for prediction (30 in the paper).
    """

    reference: ClassVar = Reference(
        "Maddox, Garipov, Izmailov, Vetrov & Wilson",
        2019,
        arxiv="1902.02476",
        title="A simple baseline for Bayesian uncertainty in deep learning",
    )
    inner: Sampler[Any] = field(default_factory=lambda: SGD(lr=0.05, schedule="constant"))
    collect: float = 0.5
    rank: int = 20
    scale: float = 1.0
    num_draws: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.collect <= 1:
            raise ValueError(f"SWAG: collect must be in (0, 1], got {self.collect}")
        if self.rank < 0 or self.rank == 1:
            raise ValueError(f"SWAG: rank must be 0 (diagonal) or at least 2, got {self.rank}")
        if self.num_draws < 0 or self.scale < 0:
            raise ValueError(f"SWAG: num_draws and scale must not be negative, got {self.num_draws}, {self.scale}")

    def init(self, network: Network, task: Task, run: Run) -> "SWAGState":
        """See `Sampler.init`."""
        inner = self.inner.init(network, task, run)
        if not isinstance(inner, GradientState):
            raise CannotCompose(
                f"SWAG collects the weights of one gradient sampler; those of {type(self.inner).__name__} would be "
                "collected without what it does to them. Write SWAG(inner=SGD())"
            )
        return SWAGState(self, inner, task, run)

    def step(self, state: "SWAGState", objective: Objective, batch: Batch) -> Scalar:
        """One inner step; collects at the end of late epochs."""
        loss = self.inner.step(state.inner, objective, batch)
        state.done += 1
        if state.done >= state.first and state.done % state.every == 0:
            state.collect()
        return loss

    def predictor(self, state: "SWAGState") -> Predictor:
        """The mixture over draws, or the mean's point where num_draws is 0."""
        draws = [state.draw() for _ in range(self.num_draws)] or [state.centre()]
        stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
        return WeightSamples(state.network, stacked)


class SWAGState:
    """The inner state and the moments of what it passed through."""

    def __init__(self, spec: SWAG, inner: Any, task: Task, run: Run) -> None:
        self.spec, self.inner, self.task, self.run = spec, inner, task, run
        self.network: Network = inner.network
        self.every = task.train.num_batches(spec.batch_size)
        self.first = max(1, math.ceil((1 - spec.collect) * spec.epochs * self.every))
        self.done, self.collected = 0, 0
        self.moving = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.mean = {name: torch.zeros_like(p) for name, p in self.moving.items()}
        self.square = {name: torch.zeros_like(p) for name, p in self.moving.items()}
        self.deviations: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def collect(self) -> None:
        """Take the present weights into the moments."""
        share = 1 / (self.collected + 1)
        for name, parameter in self.moving.items():
            self.mean[name].lerp_(parameter, share)
            self.square[name].lerp_(parameter.square(), share)
        self.collected += 1
        if self.spec.rank:
            self.deviations.append({name: p - self.mean[name] for name, p in self.moving.items()})
            del self.deviations[: -self.spec.rank]

    @torch.no_grad()
    def draw(self) -> dict[str, Tensor]:
        """One draw of the weights, with the statistics that belong to it; from torch's global stream."""
        spec, drawn = self.spec, {}
        low_rank = len(self.deviations) > 1
        z2 = torch.randn(len(self.deviations), device=self.network.device)
        for name, mean in self.mean.items():
            sigma = (self.square[name] - mean.square()).clamp_min(MIN_VARIANCE).sqrt()
            noise = sigma * torch.randn_like(mean)
            if low_rank:
                stacked = torch.stack([deviation[name] for deviation in self.deviations])
                noise = (noise + torch.tensordot(z2, stacked, 1) / math.sqrt(len(stacked) - 1)) / math.sqrt(2)
            drawn[name] = mean + spec.scale * noise
        return {**drawn, **self.statistics(drawn)}

    def centre(self) -> dict[str, Tensor]:
        """The mean of the weights (SWA), with its statistics."""
        return {**self.mean, **self.statistics(self.mean)}

    @torch.no_grad()
    def statistics(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Running statistics under other weights: the plain mean over one clean pass of the training split."""
        probe = self.network.copy()
        tracked = {name: module for name, module in probe.named_modules() if isinstance(module, KeepsStatistics)}
        if not any(module.track_running_stats for module in tracked.values()):
            return {}
        probe.load_state_dict({**probe.state_dict(), **weights})
        for module in tracked.values():
            module.reset_running_stats()
            module.momentum = None  # a plain average over batches
        probe.train()
        for batch in self.task.train.ordered(self.spec.batch_size or 500):
            if len(batch.x) > 1:
                probe(batch.to(self.run.device, self.run.runtime.dtype).x)
        return {
            f"{name}.{buffer}": tensor.clone()
            for name, module in tracked.items()
            for buffer, tensor in module.named_buffers(recurse=False)
        }

    def state_dict(self) -> dict[str, Any]:
        """The inner state, the moments and the place."""
        return {
            "inner": self.inner.state_dict(),
            "mean": self.mean,
            "square": self.square,
            "deviations": self.deviations,
            "done": self.done,
            "collected": self.collected,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.inner.load_state_dict(state["inner"])
        self.mean, self.square, self.deviations = state["mean"], state["square"], state["deviations"]
        self.done, self.collected = state["done"], state["collected"]
