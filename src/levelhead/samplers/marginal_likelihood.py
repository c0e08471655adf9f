"""Training under a prior that the marginal likelihood of the training rows chooses along the way."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.capture import check_uses
from levelhead.curvature.evidence import grouped
from levelhead.curvature.memory import estimate
from levelhead.curvature.selection import Selection
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._around import Around
from levelhead.samplers._evidence import SUMS, Noise, evidence, passed
from levelhead.samplers._gradient import GradientState
from levelhead.samplers._trajectory import priors
from levelhead.samplers.adamw import AdamW
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, CannotCompose, Reference, Scalar

SCOPES, NOISES, KINDS = ("layer", "all"), ("network", "evidence"), ("ggn", "empirical", "mc")
MEMORY = 2**30  # bytes that sums and passes may take
DECAY = (
    "MarginalLikelihood chooses the prior, and {inner} decays weights by a prior of its own. Write "
    "{name}(weight_decay=0.0) inside, which stays out of the way"
)
UNKNOWN = (
    "MarginalLikelihood wants the curvature of every weight that trains, in one network with one output a row. Leave "
    "the surgery out, or train with {name} alone and put Laplace() behind it. What is in the way: {refusal}"
)
TWO_PRIORS = (
    "MarginalLikelihood chooses the precision of a Gaussian prior, and this recipe has a prior among its regularisers. "
    "Leave one of the two out"
)


@dataclass(frozen=True)
class MarginalLikelihood(Around):
    """Weights descend -log p(y | theta) + sum_g prior_g |theta_g|^2 / 2; every few epochs the priors climb

    log p(data) ~ log p(data | theta) - (log det P - log det P_0 + theta' P_0 theta) / 2,  P = H + P_0,

    H the curvature of the training loss at the present weights, by Adam on the logarithms. The result is the network at
    its best evidence so far. No validation rows are read; a prior or weight decay of one's own is refused.

    inner            a gradient sampler with weight_decay=0.0.
    structure        of H: "kronecker", "diagonal", or "full" for small networks. kind: "ggn", or cheaper by the number
                     of outputs "empirical" or "mc", as in Laplace.
    scope            a precision for each "layer", or one for "all".
    prior_precision  where they start.
    noise            of regression: "network", learned as an output; "evidence", one variance for all rows and targets,
                     chosen like the priors. It lives in the last layer's bias and is no parameter of the posterior.
    every            epochs between evidence steps; warmup_epochs before the first.
    steps, lr        of Adam at each.

    Raises CannotCompose for members, layers whose curvature is not known, and other samplers.

    Immer, Bauer, Fortuin, Raetsch & Khan, arXiv 2104.04975.
    """

    reference: ClassVar = Reference(
        "Immer, Bauer, Fortuin, Raetsch & Khan",
        2021,
        arxiv="2104.04975",
        title="Scalable Marginal Likelihood Estimation for Model Selection in Deep Learning",
    )
    inner: Sampler[Any] = field(default_factory=lambda: AdamW(weight_decay=0.0))
    structure: str = "kronecker"
    kind: str = "ggn"
    scope: str = "layer"
    prior_precision: float = 1.0
    noise: str = "network"
    every: int = 1
    warmup_epochs: int = 0
    steps: int = 10
    lr: float = 0.1

    def __post_init__(self) -> None:
        for name, known in (("structure", tuple(SUMS)), ("kind", KINDS), ("scope", SCOPES), ("noise", NOISES)):
            if getattr(self, name) not in known:
                raise ValueError(f"MarginalLikelihood: {name} must be one of {known}, got {getattr(self, name)!r}")
        if self.every < 1 or self.steps < 1 or self.warmup_epochs < 0:
            raise ValueError("MarginalLikelihood: every and steps must be at least 1, warmup_epochs not negative")
        if not (self.prior_precision > 0 and self.lr > 0):
            raise ValueError("MarginalLikelihood: prior_precision and lr must be positive")
        if self.noise == "evidence" and self.kind != "ggn":
            raise ValueError("MarginalLikelihood: noise='evidence' knows kind='ggn' alone")

    def init(self, network: Network, task: Task, run: Run) -> "MarginalLikelihoodState":
        """See `Sampler.init`."""
        inner = self.inner.init(network, task, run)
        name = type(self.inner).__name__
        if not isinstance(inner, GradientState):
            raise CannotCompose(
                f"MarginalLikelihood trains with one gradient sampler, not {name}; write "
                "MarginalLikelihood(inner=AdamW(weight_decay=0.0)), and leave other wrappers out"
            )
        if any(group["weight_decay"] for group in inner.optimiser.param_groups):
            raise CannotCompose(DECAY.format(inner=name, name=name.lower()))
        return MarginalLikelihoodState(self, inner, task, run)

    def step(self, state: "MarginalLikelihoodState", objective: Objective, batch: Batch) -> Scalar:
        """One inner step under the present prior; after some epochs, steps of the prior. Returns the objective."""
        if priors(objective):
            raise CannotCompose(TWO_PRIORS)
        self.inner.step(state.inner, state.under_prior(objective), batch)
        state.after_step()
        return state.loss

    def predictor(self, state: "MarginalLikelihoodState") -> Predictor:
        """The weights of the best evidence, as a point."""
        if state.best is not None:
            state.network.load_state_dict(state.best)
        return self.inner.predictor(state.inner)


class MarginalLikelihoodState:
    """The inner state, the logarithms of the precisions (and of the noise) with their Adam, and the best so far.

    history  the evidence after each of the evidence steps, nats.
    """

    def __init__(self, spec: MarginalLikelihood, inner: GradientState, task: Task, run: Run) -> None:
        self.spec, self.inner, self.train, self.run = spec, inner, task.train, run
        self.network: Network = inner.network
        self.selection, self.rows = watched_weights(self.network, self.train, spec)
        self.groups = grouped(self.selection.names, by_layer=spec.scope == "layer")
        like = next(self.network.parameters())
        start = torch.tensor(spec.prior_precision, dtype=torch.float64, device=like.device).log()
        self.log_prior = start.repeat(max(self.groups) + 1).requires_grad_()
        self.log_variance = torch.zeros_like(start).requires_grad_()
        self.noise = Noise(self.network) if spec.noise == "evidence" else None
        self.hold_noise()
        self.optimiser = torch.optim.Adam([self.log_prior, self.log_variance], lr=spec.lr)
        self.every = self.train.num_batches(spec.batch_size)
        self.done, self.loss = 0, start.new_zeros(())
        self.best: dict[str, Tensor] | None = None
        self.history: list[float] = []

    @property
    def prior_precision(self) -> Float[Tensor, " group"]:
        """The present precisions, one a group."""
        return self.log_prior.detach().exp()

    def under_prior(self, objective: Objective) -> Objective:
        """The objective with the Gaussian prior's part, divided by the number of training rows."""
        precisions = self.prior_precision.to(next(self.network.parameters()).dtype)

        def extended(forward: Forward) -> Scalar:
            loss = objective(forward)
            self.loss = loss.detach()
            squares = [
                precisions[group] * watch.tensor.square().sum()
                for group, watch in zip(self.groups, self.selection.watches, strict=True)
            ]
            return loss + 0.5 * torch.stack(squares).sum() / len(self.train)

        return extended

    def after_step(self) -> None:
        """Count a step; where an epoch ends, perhaps, move the prior and remember the best evidence."""
        self.hold_noise()
        self.done += 1
        epoch, rest = divmod(self.done, self.every)
        if rest == 0 and epoch > self.spec.warmup_epochs and (epoch - self.spec.warmup_epochs) % self.spec.every == 0:
            self.climb()

    def hold_noise(self) -> None:
        """The noise is the evidence's alone."""
        if self.noise is not None:
            self.noise.hold(float(self.log_variance.detach()))

    def climb(self) -> None:
        """Adam on the evidence at the present weights, and the best so far."""
        spec = self.spec
        found = passed(
            self.network,
            self.selection,
            self.train,
            structure=spec.structure,
            kind=spec.kind,
            noise=self.noise,
            rows=self.rows,
        )
        theta = self.theta()

        def value() -> Scalar:
            variance = None if self.noise is None else self.log_variance
            return evidence(found, theta, self.groups, self.log_prior, variance)

        with torch.enable_grad():
            for _ in range(spec.steps):
                self.optimiser.zero_grad()
                (-value()).backward()
                self.optimiser.step()
        self.hold_noise()
        reached = float(value().detach())
        if not self.history or reached > max(self.history):
            self.best = {name: t.detach().clone() for name, t in self.network.state_dict().items()}
        self.history.append(reached)

    def theta(self) -> Float[Tensor, " flat"]:
        """The weights under the prior; the places that hold the noise are none."""
        theta = self.selection.theta()
        if self.noise is not None:
            every = torch.cat([torch.arange(w.place.start, w.place.stop) for w in self.selection.watches])
            theta[torch.isin(every, torch.tensor(self.noise.places)).to(theta.device)] = 0.0
        return theta

    def state_dict(self) -> dict[str, Any]:
        """The inner state, the precisions and their Adam, the best, the place."""
        return {
            "inner": self.inner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "hyper": [self.log_prior.detach(), self.log_variance.detach()],
            "best": self.best,
            "history": self.history,
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.inner.load_state_dict(state["inner"])
        self.optimiser.load_state_dict(state["optimiser"])
        with torch.no_grad():
            for own, stored in zip((self.log_prior, self.log_variance), state["hyper"], strict=True):
                own.copy_(stored)
        self.best, self.history, self.done = state["best"], list(state["history"]), state["done"]


def watched_weights(network: Network, train: Split, spec: MarginalLikelihood) -> tuple[Selection, int]:
    """What trains, and how many rows may pass at a time.

    Raises CannotCompose where its curvature is not known, or would not fit into memory.
    """
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    like = next(network.parameters())
    try:
        selection = Selection.of_names(network, names)
        memory = estimate(network, selection, spec.structure, rank=1, num_rows=len(train))
        check_uses(network, selection.watches, next(train.ordered(2)).to(like.device, like.dtype).x)
        return selection, memory.rows(MEMORY, structure=spec.structure)
    except CannotCompose as refusal:
        raise CannotCompose(UNKNOWN.format(name=type(spec.inner).__name__, refusal=refusal)) from None
