"""NOMU's loss: no model uncertainty where the data are, as much as it costs nothing elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.artificial.training_box import TrainingBox
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.nomu.likelihood import WithModelUncertainty
from levelhead.nomu.loss import in_sample, out_of_sample
from levelhead.nomu.paper import PAPER
from levelhead.probe import evaluating
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose, Scalar

Draw = Callable[[int], Tensor]


@dataclass(frozen=True)
class NomuLoss:
    """loss + pi_sqr mean_i r(x_i)^2 + (pi_exp / N) mean_j exp(-c_exp r(x~_j)),  r the raw uncertainty of `SideNetwork`.

    With `Noiseless` targets, whose loss is the mean squared error, this is the paper's loss divided by the number N of
    training rows: its sums over rows become means, and its L2 penalty is LayerL2(groups=..., coefficients=...) with the
    paper's lambdas as they are. Its expectation over batches is the loss of all rows.

    pi_sqr, pi_exp, c_exp  the paper's weights; in standardised target units.
    num_points  artificial inputs x~ a step, drawn anew by `points` from the training inputs: a spec of
                `levelhead.artificial`, or any function from training inputs (row, *input) to a function of a number.
    stable      r^2 becomes a Huber loss beyond |r| = delta, and the exponential a straight line of slope c_neg c_exp
                for r < 0: the same for 0 <= r <= delta, without overflow.
    rescale     False divides the artificial term by the rows of the batch instead of N, as the authors' code does: it
                then counts N / batch times as much.

    Artificial inputs pass in eval: BatchNorm uses its running statistics and keeps them, dropout is off. Several
    targets have one r each, whose terms are added. Raises CannotCompose for a network without a side network.

    Heiss et al., arXiv 2102.13640.
    """

    reference: ClassVar = PAPER
    wants_targets: ClassVar = True
    pi_sqr: float = 0.1
    pi_exp: float = 0.01
    c_exp: float = 30.0
    num_points: int = 128
    points: Any = field(default_factory=TrainingBox)
    stable: bool = True
    rescale: bool = True
    delta: float = 1.0
    c_neg: float = 1.0

    def __post_init__(self) -> None:
        for name in ("pi_sqr", "pi_exp", "num_points", "c_neg"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"NomuLoss: {name} must not be negative, got {getattr(self, name)}")
        if isinstance(self.num_points, bool) or not isinstance(self.num_points, int):
            raise ValueError(f"NomuLoss: num_points must be a whole number, got {self.num_points!r}")
        for name in ("c_exp", "delta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"NomuLoss: {name} must be positive, got {getattr(self, name)}")
        if not callable(self.points):
            raise TypeError(f"NomuLoss: points wants a spec such as TrainingBox() or a function, got {self.points!r}")

    def start(self, network: Network, task: Task, run: Run) -> "_Terms":
        """The term of one fit."""
        if not isinstance(network.likelihood, WithModelUncertainty):
            raise CannotCompose(
                "NomuLoss() shapes the raw uncertainty of a side network, and this network has none. Write "
                "surgery=(SideNetwork(),), regularisers=(NomuLoss(),)"
            )
        rows = next(task.train.ordered(len(task.train))).to(run.device, next(network.parameters()).dtype).x
        return _Terms(self, self.points(rows), len(rows))

    def of_sample(self, raw: Float[Tensor, "*batch target"]) -> Scalar:
        """The term of training inputs, a mean over rows and a sum over targets."""
        return self.pi_sqr * in_sample(raw, stable=self.stable, delta=self.delta).sum(-1).mean()

    def of_points(self, raw: Float[Tensor, "*batch target"], num_rows: int) -> Scalar:
        """The term of artificial inputs, in the loss of `num_rows` rows divided by their number."""
        away = out_of_sample(raw, c_exp=self.c_exp, stable=self.stable, c_neg=self.c_neg)
        return self.pi_exp / num_rows * away.sum(-1).mean()


class _Terms:
    """The two terms at work."""

    def __init__(self, spec: NomuLoss, draw: Draw, num_rows: int) -> None:
        self.spec, self.draw, self.num_rows = spec, draw, num_rows

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective and the two terms, in float32 at least."""
        spec, network = self.spec, forward.network
        total = inner(forward) + spec.of_sample(raw_of(network, forward.outputs))
        if spec.num_points and spec.pi_exp:
            rows = self.num_rows if spec.rescale else forward.outputs.shape[1]
            with evaluating(network):
                outputs = network(self.draw(spec.num_points))
            total = total + spec.of_points(raw_of(network, outputs), rows)
        return total

    def end_epoch(self, network: Network) -> None:
        """Nothing happens between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember: points come from torch's stream, which a checkpoint holds."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def raw_of(network: Network, outputs: Float[Tensor, "row *batch output"]) -> Float[Tensor, "row *batch target"]:
    """Raw model uncertainties among a network's outputs, in float32 at least: the exponential wants digits."""
    assert isinstance(network.likelihood, WithModelUncertainty), "start() has looked"
    raw = network.likelihood.parts(outputs)[1]
    return raw.float() if raw.dtype.itemsize < 4 else raw
