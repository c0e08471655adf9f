"""Affine maps of logits, fitted by penalised likelihood: vector and matrix scaling, Dirichlet calibration."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import ClassRows
from levelhead.recalibration.members import Recalibrated
from levelhead.types import Scalar

RIDGE = 1e-6  # on what no other penalty holds: fixes what softmax leaves free, and where rows cannot tell
STEPS = 250  # well-posed fits take some tens; where rows can be separated the ridge alone decides, slowly


class Affine(Recalibrated):
    """softmax(weight z + bias) of the mixture's log probabilities z, or of these less their mean over classes.

    weight   (class, class), or (class,) for a diagonal.
    centred  z = log p - mean_k log p_k: a network's own logits up to the shift that softmax removes. False: z = log p.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        inner: Predictor,
        weight: Float[Tensor, "*class class"],
        bias: Float[Tensor, " class"],
        centred: bool,
        fitted_on: str = "",
    ) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.centred = centred
        self.fitted_on = fitted_on
        self.eval()

    def mapped(self, log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        """See `Recalibrated.mapped`."""
        weight, bias = self.weight.double(), self.bias.double()
        return affine(features(log_probs, centred=self.centred), weight, bias).log_softmax(-1)


def features(log_probs: Float[Tensor, "*batch class"], *, centred: bool) -> Float[Tensor, "*batch class"]:
    """What the affine map acts on."""
    return log_probs - log_probs.mean(-1, keepdim=True) if centred else log_probs


def affine(
    z: Float[Tensor, "*batch class"], weight: Float[Tensor, "*class class"], bias: Float[Tensor, " class"]
) -> Float[Tensor, "*batch class"]:
    """weight z + bias, with a full or a diagonal weight."""
    return (z @ weight.mT if weight.ndim == 2 else z * weight) + bias


def fitted_affine(
    rows: ClassRows,
    *,
    weight: Float[Tensor, "*class class"],
    centred: bool,
    penalty: Callable[[Tensor, Tensor], Scalar],
    shared: bool = False,
) -> tuple[Float[Tensor, "*class class"], Float[Tensor, " class"]]:
    """Weight and bias with the smallest mean negative log likelihood plus penalty(weight, bias), float64.

    weight  where the search starts, and the point to which `RIDGE` pulls; its shape says full or diagonal.
    shared  one weight for all classes, which starts at the mean of `weight`.

    The problem is convex and, with the ridge, strictly so: L-BFGS with strong Wolfe steps finds its one minimum.
    """
    z, target = features(rows.log_probs, centred=centred), weight.to(rows.log_probs)
    free = (target.mean().reshape(1) if shared else target).clone()
    bias = torch.zeros_like(z[0])

    def loss(free: Tensor, bias: Tensor) -> Scalar:
        full = free.expand_as(target) if shared else free
        nll = F.cross_entropy(affine(z, full, bias), rows.y)
        return nll + penalty(full, bias) + RIDGE * ((full - target).square().sum() + bias.square().sum())

    free, bias = minimised(loss, free, bias)
    return (free.expand_as(target).clone() if shared else free), bias


def minimised(loss: Callable[..., Scalar], *starts: Tensor) -> tuple[Tensor, ...]:
    """The arguments with the smallest loss, by L-BFGS in float64 from `starts`; the caller may have gradients off."""
    with torch.enable_grad():
        arguments = [start.detach().double().clone().requires_grad_(True) for start in starts]
        optimiser = torch.optim.LBFGS(
            arguments,
            max_iter=STEPS,
            max_eval=2 * STEPS,
            history_size=20,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            value = loss(*arguments)
            for argument, gradient in zip(arguments, torch.autograd.grad(value, arguments), strict=True):
                argument.grad = gradient
            return value

        optimiser.step(closure)
    return tuple(argument.detach() for argument in arguments)


def off_diagonal(weight: Float[Tensor, "class class"]) -> Scalar:
    """sum_{i != j} W_ij^2."""
    return weight.square().sum() - rearrange(weight.diagonal().square(), "k -> k").sum()
