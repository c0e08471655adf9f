"""Beta calibration, and Platt's sigmoid as a case of it: three numbers for each class's probability."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import MIN_LOG_PROB, class_rows
from levelhead.recalibration.members import Recalibrated
from levelhead.tasks.task import Task
from levelhead.types import Reference

RIDGE = 1e-6  # pulls to a = b = 1, c = 0 where rows cannot tell
NEWTON_STEPS, HALVINGS = 60, 20


@dataclass(frozen=True)
class Beta:
    """g(p) = sigmoid(a ln p - b ln(1 - p) + c),  a, b >= 0, of least mean log loss on task.calibration.

    Two classes: g of the second, 1 - g of the first. More: one against the rest, renormalised. Right if the
    probabilities of hits and misses are beta distributed; g can be the identity, which Platt's sigmoid of p cannot.
    A mixture is pooled first; inside a combinator each member gets its own numbers. Labels may change.

    parameters  "abc": beta calibration. "ac": a = b, a line in the log odds, which is Platt scaling of a classifier
                whose score is its logit.

    Where the best a or b is negative it is set to 0 and the rest fitted again, as in the paper. Raises CannotCompose
    for real targets, and after conformal or selective steps.

    Kull, Silva Filho & Flach 2017, "Beta calibration: a well-founded and easily implemented improvement on logistic
    calibration for binary classifiers"; Platt 1999.
    """

    reference: ClassVar = Reference(
        "Kull, Silva Filho & Flach",
        2017,
        title="Beta Calibration: A Well-founded and Easily Implemented Improvement on Logistic Calibration for Binary "
        "Classifiers",
    )
    parameters: Literal["abc", "ac"] = "abc"

    def __post_init__(self) -> None:
        if self.parameters not in ("abc", "ac"):
            raise ValueError(f'Beta: parameters must be "abc" or "ac", got {self.parameters!r}')

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, calibrated."""
        rows = class_rows(predictor, task, step="Beta()")
        hits = F.one_hot(rows.labels, rows.log_probs.shape[-1]).double()
        log_p, log_not_p = rows.log_probs, log_complement(rows.log_probs)
        if rows.log_probs.shape[-1] == 2:
            hits, log_p, log_not_p = hits[:, 1:], log_p[:, 1:], log_not_p[:, 1:]
        slopes, shift = fitted_beta(log_p, log_not_p, hits, tied=self.parameters == "ac")
        return BetaCurves(predictor, slopes, shift, task.calibration.digest)


class BetaCurves(Recalibrated):
    """slopes (curve, 2): a and b of each class, or of the second of two; shift (curve,): c."""

    slopes: Tensor
    shift: Tensor

    def __init__(
        self,
        inner: Predictor,
        slopes: Float[Tensor, "curve 2"],
        shift: Float[Tensor, " curve"],
        fitted_on: str = "",
    ) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("slopes", slopes)
        self.register_buffer("shift", shift)
        self.fitted_on = fitted_on
        self.eval()

    def mapped(self, log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        """See `Recalibrated.mapped`."""
        slopes, shift = self.slopes.double(), self.shift.double()
        if log_probs.shape[-1] == 2:  # the two log probabilities are each other's complement
            second = slopes[0, 0] * log_probs[..., 1] - slopes[0, 1] * log_probs[..., 0] + shift[0]
            return torch.stack([F.logsigmoid(-second), F.logsigmoid(second)], dim=-1)
        odds = slopes[:, 0] * log_probs - slopes[:, 1] * log_complement(log_probs) + shift
        return F.logsigmoid(odds).log_softmax(-1)


def log_complement(log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
    """ln(1 - p_k), for the likeliest class from the others, since 1 - p loses its digits near p = 1."""
    is_top = F.one_hot(log_probs.argmax(-1), log_probs.shape[-1]).bool()
    others = torch.logsumexp(log_probs.masked_fill(is_top, -torch.inf), dim=-1, keepdim=True).clamp_min(MIN_LOG_PROB)
    below = torch.where(is_top, -1.0, log_probs)  # a stand-in that keeps the gradient of the branch not taken finite
    return torch.where(is_top, others, torch.log1p(-below.exp()))


def fitted_beta(
    log_p: Float[Tensor, "row curve"],
    log_not_p: Float[Tensor, "row curve"],
    hits: Float[Tensor, "row curve"],
    *,
    tied: bool,
) -> tuple[Float[Tensor, "curve 2"], Float[Tensor, " curve"]]:
    """The slopes (a, b) and shifts c of least mean log loss, each curve by itself, float64."""
    columns = [log_p - log_not_p] if tied else [log_p, -log_not_p]
    features = torch.stack([*columns, torch.ones_like(log_p)], dim=-1)
    held = torch.zeros_like(features[0], dtype=torch.bool)  # slopes that would be negative
    for _ in range(len(columns) + 1):
        found = logistic(features.masked_fill(held, 0.0), hits)
        negative = (found < 0) & ~held
        negative[:, -1] = False  # the shift may be
        if not bool(negative.any()):
            break
        held = held | negative
    found = found.masked_fill(held, 0.0)
    return found[:, :-1].expand(-1, 2).clone(), found[:, -1].clone()


def logistic(
    features: Float[Tensor, "row curve feature"], hits: Float[Tensor, "row curve"]
) -> Float[Tensor, "curve feature"]:
    """Coefficients of least mean log loss plus RIDGE |coefficients - identity|^2, by Newton steps that never go up."""
    identity = torch.ones_like(features[0])
    identity[:, -1] = 0.0
    eye = torch.eye(features.shape[-1]).to(features)

    def loss(found: Tensor) -> Float[Tensor, " curve"]:
        nll = F.binary_cross_entropy_with_logits((features * found).sum(-1), hits, reduction="none").mean(0)
        return nll + RIDGE * (found - identity).square().sum(-1)

    found, value = identity, loss(identity)
    for _ in range(NEWTON_STEPS):
        p = (features * found).sum(-1).sigmoid()
        slope = ((p - hits)[..., None] * features).mean(0) + 2 * RIDGE * (found - identity)
        weighted = features * (p * (1 - p))[..., None]
        curvature = torch.einsum("rci,rcj->cij", weighted, features) / len(hits) + 2 * RIDGE * eye
        step = torch.linalg.solve(curvature, slope)
        size = torch.ones_like(value)
        for _ in range(HALVINGS):
            tried = found - size[:, None] * step
            better = loss(tried) <= value
            if bool(better.all()):
                break
            size = torch.where(better, size, size / 2)
        tried = torch.where(better[:, None], tried, found)
        moved = float((tried - found).abs().max())
        found, value = tried, loss(tried)
        if moved < 1e-9:
            break
    return found
