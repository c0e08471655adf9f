"""NOMU for a network that is already trained: error bars from its training rows, its predictions as they were."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.artificial.training_box import TrainingBox
from levelhead.curvature.readout import one_network
from levelhead.likelihood import Gaussian
from levelhead.noiseless import Noiseless
from levelhead.nomu.attached import AttachedUncertainty, side_of
from levelhead.nomu.loss import in_sample, out_of_sample
from levelhead.nomu.paper import PAPER
from levelhead.nomu.readout import Readout
from levelhead.predictor import Point, Predictor
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

Draw = Callable[[int], Tensor]
BATCH = 1000  # rows whose features are computed at once


@dataclass(frozen=True)
class AttachNomu:
    """Minimise over the side network alone  pi_sqr sum_i r(x_i)^2 + pi_exp mean_j exp(-c_exp r(x~_j)) + l2 |theta_r|^2.

    The network's last features h_f enter r as constants, so its means and its own noise stay bit for bit, and its
    epistemic variance becomes (c phi(r))^2 in standardised units. The disjoint variant of the paper (NOMU-DJ) is this
    step on a network trained by squared error (`Noiseless` targets).

    hidden, l_min, l_max, c  as in `SideNetwork`; pi_sqr to points as in `NomuLoss`, in their stable form.
    steps       of Adam at `lr`, on at most `batch_size` training rows and `num_points` artificial inputs each.
    l2          on all weights and biases of the side network. The paper's 1e-8 leaves it free; 1e-3 makes distance
                follow the features of the network, which is what the connection is for.

    Reads task.train. Raises CannotCompose for classes, maps, and what is not one network with one set of weights.

    Heiss et al., arXiv 2102.13640.
    """

    reference: ClassVar = PAPER
    wants_targets: ClassVar = True
    hidden: tuple[int, ...] = (50,)
    steps: int = 1024
    batch_size: int = 1000
    lr: float = 1e-3
    l2: float = 1e-8
    pi_sqr: float = 0.1
    pi_exp: float = 0.01
    c_exp: float = 30.0
    num_points: int = 128
    points: Any = field(default_factory=TrainingBox)
    l_min: float = 1e-3
    l_max: float = 2.0
    c: float = 1.0

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"AttachNomu: hidden wants one positive width a hidden layer, got {self.hidden}")
        for name in ("steps", "batch_size", "num_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"AttachNomu: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("l2", "pi_sqr", "pi_exp"):
            if getattr(self, name) < 0:
                raise ValueError(f"AttachNomu: {name} must not be negative, got {getattr(self, name)}")
        for name in ("lr", "c_exp"):
            if not getattr(self, name) > 0:
                raise ValueError(f"AttachNomu: {name} must be positive, got {getattr(self, name)}")
        if not callable(self.points):
            raise TypeError(f"AttachNomu: points wants a spec such as TrainingBox() or a function, got {self.points!r}")
        self.readout  # noqa: B018  # its demands are ours

    @property
    def readout(self) -> Readout:
        """From r to a standard deviation."""
        return Readout(self.l_min, self.l_max, self.c)

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor with its model uncertainty."""
        point = self.checked(predictor)
        like = next(point.network.parameters())
        x = next(task.train.ordered(len(task.train))).to(like.device, like.dtype).x
        with torch.no_grad():
            features = torch.cat([point.embed(part) for part in x.split(BATCH)], dim=1)
        if features.ndim != 3:
            raise CannotCompose(
                "AttachNomu() reads one vector of features an input, and these features are maps. Put a pooling layer "
                "at the end of the features"
            )
        return AttachedUncertainty(point, self.fitted(point, x, features), self.readout)

    def checked(self, predictor: Predictor) -> Point:
        """The predictor, if it is one network about real targets and without a side network."""
        point = one_network(predictor, step="AttachNomu()")
        if not isinstance(point.network.likelihood, Gaussian | Noiseless):
            raise CannotCompose(
                "AttachNomu() says model uncertainty about real targets of a network that does not say its own yet, "
                f"and this network's likelihood is {type(point.network.likelihood).__name__}. For classes write "
                "posthoc=(Laplace(),); leave out AttachNomu() where SideNetwork() is in the recipe"
            )
        return point

    def fitted(
        self, point: Point, x: Float[Tensor, "batch *input"], features: Float[Tensor, "row batch feature"]
    ) -> dict[str, Tensor]:
        """The side network's weights after training, from torch's global stream."""
        draw: Draw = self.points(x)
        with torch.enable_grad():
            side = side_of(point.network, self.hidden).to(features)
            adam = torch.optim.Adam(side.parameters(), lr=self.lr)
            for _ in range(self.steps):
                chosen = torch.randperm(len(x), device=x.device)[: self.batch_size]
                here = side(x[chosen], rearrange(features, "row batch f -> batch row f")[chosen].transpose(0, 1))
                away = draw(self.num_points)
                with torch.no_grad():
                    beyond = point.embed(away)
                there = side(away, beyond)
                # divided by the number of rows: a mean over them, as everywhere here
                loss = self.pi_sqr * in_sample(here, stable=True).sum(-1).mean()
                loss = loss + self.pi_exp / len(x) * out_of_sample(there, c_exp=self.c_exp, stable=True).sum(-1).mean()
                loss = loss + self.l2 / len(x) * sum(p.square().sum() for p in side.parameters())
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
        return {name: t.detach() for name, t in side.state_dict().items()}
