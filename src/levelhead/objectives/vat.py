"""Virtual adversarial training: the prediction should not move under the worst small change of x."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.forward import Forward, Objective, Stateless, gradient
from levelhead.network import Network
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Reference, Scalar


@dataclass(frozen=True)
class VAT(Stateless):
    """loss(x) + weight * mean KL(p(.|x) || p(.|x + r)),  r = eps * d / |d|,  |.| the L2 norm of an example.

    d comes from `power_steps` rounds of power iteration towards the top eigenvector of G, the Hessian of the KL in r.
    The clean outputs are the target and carry no gradient, and nor does r. All passes share their noise, and the side
    passes move no statistic. Members are attacked jointly and averaged.

    Where the task has unlabelled rows, the KL is taken on `unlabelled_batch` of them too, each step, in a pass of their
    own. eps is in the units of x: the published 2.5 (SVHN) to 10 (CIFAR-10) hold for whitened pixels and do not
    transfer to [0, 1]. `eps_units="per_sqrt_dim"` multiplies it by the root of the number of input dimensions.

    power  "finite": one side pass at xi * d and its gradient. The published xi of 1e-6 is rounding noise in float32;
           1e-2 finds the direction as well as "exact", which multiplies by G through automatic differentiation.

    eps, xi > 0 (eps = 0 switches the method off); weight, entropy_weight >= 0. Raises ValueError otherwise.
    """

    reference: ClassVar = Reference(
        "Miyato, Maeda, Koyama & Ishii",
        2018,
        arxiv="1704.03976",
        title="Virtual adversarial training: a regularization method for supervised and semi-supervised learning",
    )
    eps: float = 1.0
    xi: float = 1e-2
    power_steps: int = 1
    weight: float = 1.0
    entropy_weight: float = 0.0  # of the prediction's entropy on unlabelled rows (VATent); ramp it up on few labels
    power: Literal["finite", "exact"] = "finite"
    eps_units: Literal["input", "per_sqrt_dim"] = "input"
    unlabelled_batch: int = 128

    def __post_init__(self) -> None:
        if self.eps < 0 or self.xi <= 0 or self.weight < 0 or self.entropy_weight < 0:
            raise ValueError(f"VAT: wants eps >= 0, xi > 0 and weights >= 0, got {self}")
        if self.power_steps < 0 or self.unlabelled_batch < 2:
            raise ValueError(f"VAT: wants power_steps >= 0 and unlabelled_batch >= 2, got {self}")
        if self.power not in ("finite", "exact"):
            raise ValueError(f"VAT: power must be 'finite' or 'exact', got {self.power!r}")
        if self.eps_units not in ("input", "per_sqrt_dim"):
            raise ValueError(f"VAT: eps_units must be 'input' or 'per_sqrt_dim', got {self.eps_units!r}")

    def start(self, network: Network, task: Task, run: Run) -> Any:
        """The spec itself, or a term that also draws unlabelled rows."""
        if task.unlabelled is None:
            return self
        return _SemiSupervised(self, task.unlabelled, run)

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective and the smoothness of the prediction at its batch."""
        return inner(forward) + self.weight * self.smoothness(forward)

    def smoothness(self, forward: Forward) -> Scalar:
        """Mean KL to the worst neighbour, in nats; differentiable in the weights through the neighbour only."""
        clean = forward.outputs.detach()
        moved = forward.at(forward.batch.x + self.perturbation(forward))
        return forward.network.likelihood.divergence(clean, moved)

    def perturbation(self, forward: Forward) -> Float[Tensor, "batch *input"]:
        """r, detached: one L2 step of length eps for each example."""
        x = forward.batch.x.detach()
        d = unit(torch.randn_like(x))
        with torch.autocast(x.device.type, enabled=False):  # differences of order xi vanish in half precision
            for _ in range(self.power_steps):
                d = unit(self._times_curvature(forward, x, d), otherwise=d)
        length = self.eps if self.eps_units == "input" else self.eps * math.sqrt(x[0].numel())
        return length * d

    def _times_curvature(self, forward: Forward, x: Tensor, d: Tensor) -> Tensor:
        """Proportional to G d."""
        clean = forward.outputs.detach().to(x.dtype)
        likelihood = forward.network.likelihood
        if self.power == "finite":
            return gradient(lambda r: likelihood.example_divergence(clean, forward.at(x + r)).sum(), self.xi * d)
        with torch.enable_grad():
            r = torch.zeros_like(x).requires_grad_(True)
            outputs = forward.at(x + r)
            slope = torch.zeros_like(outputs).requires_grad_(True)
            (pulled,) = torch.autograd.grad(outputs, r, slope, create_graph=True)
            (pushed,) = torch.autograd.grad((pulled * d).sum(), slope, retain_graph=True)  # J d
            point = outputs.detach().requires_grad_(True)
            fixed = outputs.detach()
            (rise,) = torch.autograd.grad(likelihood.example_divergence(fixed, point).sum(), point, create_graph=True)
            (curved,) = torch.autograd.grad(rise, point, pushed.detach())
            return torch.autograd.grad(outputs, r, curved)[0]


class _SemiSupervised:
    """VAT that also smooths the prediction on rows without labels."""

    def __init__(self, spec: VAT, unlabelled: Split, run: Run) -> None:
        self.spec, self.unlabelled, self.run = spec, unlabelled.to(run.device), run
        self.round, self.place = 0, 0
        self.order = self._shuffled()

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        objective = self.spec(inner, forward)
        side = Forward(forward.network, self._draw(forward.batch))
        clean = side.at(side.batch.x)  # a side pass: rows without labels move no statistic
        side = side.given(clean)
        objective = objective + self.spec.weight * self.spec.smoothness(side)
        if self.spec.entropy_weight:
            belief = forward.network.likelihood.predictive(clean)
            objective = objective + self.spec.entropy_weight * belief.aleatoric().mean()
        return objective

    def end_epoch(self, network: Network) -> None:
        """Its own epochs turn over by themselves."""

    def state_dict(self) -> dict[str, Any]:
        """Which shuffle of the unlabelled rows, and how far into it."""
        return {"round": self.round, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.round, self.place = state["round"], state["place"]
        self.order = self._shuffled()

    def _shuffled(self) -> Tensor:
        return torch.randperm(len(self.unlabelled), generator=self.run.generator("vat", self.round))

    def _draw(self, like: Batch) -> Batch:
        size = min(self.spec.unlabelled_batch, len(self.unlabelled))
        if self.place + size > len(self.unlabelled):
            self.round, self.place = self.round + 1, 0
            self.order = self._shuffled()
        rows = self.order[self.place : self.place + size]
        self.place += size
        batch = next(self.unlabelled.take(rows).ordered(size))
        return batch.to(like.x.device, like.x.dtype)


def unit(d: Float[Tensor, "batch *input"], *, otherwise: Tensor | None = None) -> Float[Tensor, "batch *input"]:
    """Each example scaled to L2 norm 1; rows of zeros become those of `otherwise`."""
    flat = rearrange(d, "b ... -> b (...)")
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)  # squares must not underflow
    norm = flat.norm(dim=1, keepdim=True)
    scaled = (flat / norm.clamp_min(0.5)).reshape(d.shape)  # the largest entry is 1, so norm >= 1 unless all are 0
    if otherwise is None:
        return scaled
    return torch.where((norm == 0).reshape(-1, *(1,) * (d.ndim - 1)), otherwise, scaled)
