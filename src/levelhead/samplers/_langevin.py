"""What the stochastic-gradient samplers share: Langevin steps as an optimiser, and which moments of a path are kept."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._agreement import agreement, watched_rows
from levelhead.samplers._gradient import GradientSpec, GradientState, descend, point, start, validate
from levelhead.samplers._trajectory import moving, priors, unspoken
from levelhead.samplers._visits import VisitsState
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Scalar

Preconditioner = Literal["none", "rmsprop"]
DECAY, FLOOR = 0.99, 1e-7  # of the mean squared gradient under "rmsprop" (Izmailov et al., arXiv 2104.14421)


class LangevinSpec(GradientSpec, Protocol):
    """The fields of the stochastic-gradient samplers beside those of gradient samplers."""

    @property
    def prior_scale(self) -> float | None: ...
    @property
    def temperature(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def preconditioner(self) -> Preconditioner: ...
    @property
    def burn_in(self) -> float: ...
    @property
    def num_draws(self) -> int: ...


class Langevin(torch.optim.Optimizer):
    """m <- momentum m - lr g / M + (2 (1 - momentum) lr T / (N M))^(1/2) xi;  w <- w + m,  xi ~ N(0, I).

    g is the gradient of (-log posterior) / N; groups hold lr. Noise comes from torch's global stream, on the
    parameters' device.

    moved  the parameters to sample; others of the groups rest.
    own    of these, the ones that have the sampler's own prior; None until the objective is known.
    """

    def __init__(
        self, groups: list[dict[str, Any]], spec: LangevinSpec, *, moved: set[Parameter], num_rows: int
    ) -> None:
        super().__init__(groups, {"lr": 0.0})
        self.moved = moved
        self.momentum, self.num_rows, self.rmsprop = spec.momentum, num_rows, spec.preconditioner == "rmsprop"
        self.precision = 0.0 if spec.prior_scale is None else spec.prior_scale**-2
        self.temperature = spec.temperature
        self.own: set[Parameter] | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter."""
        assert self.own is not None
        for group in self.param_groups:
            variance = 2 * (1 - self.momentum) * group["lr"] * self.temperature / self.num_rows
            for parameter in filter(self.moved.__contains__, group["params"]):
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                if parameter in self.own:
                    gradient = gradient.add(parameter, alpha=self.precision / self.num_rows)
                self._move(parameter, gradient, group["lr"], math.sqrt(variance))
        return None

    def _move(self, parameter: Tensor, gradient: Tensor, lr: float, noise: float) -> None:
        memory = self.state[parameter]
        change = gradient * -lr
        metric: Tensor | None = None
        if self.rmsprop:
            square = memory.setdefault("square", torch.ones_like(parameter))
            square.lerp_(gradient.square(), 1 - DECAY)
            metric = square.sqrt().add_(FLOOR)
            change /= metric
        if noise:  # at temperature 0 nothing is drawn
            drawn = torch.randn_like(parameter) * noise
            change += drawn if metric is None else drawn / metric.sqrt()
        if self.momentum:
            velocity = memory.setdefault("velocity", torch.zeros_like(parameter))
            change = velocity.mul_(self.momentum).add_(change)
        parameter.add_(change)


def validate_langevin(spec: LangevinSpec) -> None:
    """Raise ValueError for settings that no sampling can use."""
    validate(spec)
    name = type(spec).__name__
    if not spec.lr > 0:
        raise ValueError(f"{name}: lr must be positive, got {spec.lr}: without steps nothing is sampled")
    if spec.prior_scale is not None and not spec.prior_scale > 0:
        raise ValueError(
            f"{name}: prior_scale must be positive, or None where objectives hold the prior; got {spec.prior_scale}"
        )
    if spec.temperature < 0:
        raise ValueError(f"{name}: temperature must not be negative, got {spec.temperature}")
    if not 0 <= spec.momentum < 1:
        raise ValueError(f"{name}: momentum must be in [0, 1), got {spec.momentum}")
    if spec.preconditioner not in ("none", "rmsprop"):
        raise ValueError(f"{name}: preconditioner must be 'none' or 'rmsprop', got {spec.preconditioner!r}")
    if not 0 <= spec.burn_in < 1:
        raise ValueError(f"{name}: burn_in must be in [0, 1), got {spec.burn_in}")
    if spec.num_draws < 1:
        raise ValueError(f"{name}: num_draws must be at least 1, got {spec.num_draws}")


class LangevinState(VisitsState):
    """The path, the draws kept, and the rows by whose likelihoods the draws are compared."""

    def __init__(self, inner: GradientState, watched: Batch) -> None:
        super().__init__(inner)
        self.watched = watched


def begin(spec: LangevinSpec, network: Network, task: Task, run: Run) -> LangevinState:
    """The state before the first step."""
    moved, num_rows = set(moving(network).values()), len(task.train)
    inner = start(spec, network, task, run, lambda groups: Langevin(groups, spec, moved=moved, num_rows=num_rows))
    return LangevinState(inner, watched_rows(task, run))


def advance(spec: LangevinSpec, state: LangevinState, objective: Objective, batch: Batch) -> Scalar:
    """One step at the spec's rate and temperature; keeps nothing."""
    optimiser = state.inner.optimiser
    assert isinstance(optimiser, Langevin)
    if optimiser.own is None:
        names = unspoken(state.network, priors(objective))
        optimiser.own = {state.network.get_parameter(name) for name in names}
    optimiser.temperature = spec.temperature
    loss = descend(spec, state.inner, objective, batch)
    state.done += 1
    return loss


def due(done: int, first: int, last: int, count: int) -> bool:
    """Whether the moment after step `done` is one of `count` evenly spread over those from first + 1 to last."""
    if not first < done <= last:
        return False
    place, length = done - first, last - first
    return place * count // length > (place - 1) * count // length


def walk(spec: LangevinSpec, state: LangevinState, objective: Objective, batch: Batch) -> Scalar:
    """One step; keeps the weights where one of the spec's draws is due."""
    loss = advance(spec, state, objective, batch)
    total = state.inner.total
    if due(state.done, int(spec.burn_in * total), total, spec.num_draws):
        state.keep(spec.num_draws)
    return loss


def visited(state: LangevinState) -> Predictor:
    """The mixture over the draws kept, and how far they agree; the first weights where there was no step."""
    if not state.kept:
        return point(state.inner)
    mixture = state.predictor()
    mixture.diagnostics = agreement(mixture, state.watched)
    return mixture


class Walk:
    """Mixin of samplers with the fields of `LangevinSpec`, which step at one rate and keep draws evenly."""

    clip: ClassVar = None
    warmup_epochs: ClassVar = 0.0
    weight_decay: ClassVar = 0.0

    def __post_init__(self: LangevinSpec) -> None:
        validate_langevin(self)

    def init(self: LangevinSpec, network: Network, task: Task, run: Run) -> LangevinState:
        """See `Sampler.init`."""
        return begin(self, network, task, run)

    def step(self: LangevinSpec, state: LangevinState, objective: Objective, batch: Batch) -> Scalar:
        """One step; keeps the weights where one of the draws is due."""
        return walk(self, state, objective, batch)

    def predictor(self, state: LangevinState) -> Predictor:
        """The mixture over the draws; its diagnostics hold R-hat and effective sample size, as HMC's."""
        return visited(state)
