"""ODIN: a large temperature, and a small step of the input towards its own label."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.detectors import _logits
from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look
from levelhead.predictor import Predictor
from levelhead.types import CannotCompose, Reference


@dataclass(frozen=True)
class ODIN(Detector):
    """1 - max_k p_T(k | x~), p_T ~ p^(1/T), x~ = x + magnitude sign(grad_x log max_k p_T(k | x)).

    p is the deployed mixture: any predictor that is differentiable in x will do, and for one network p_T is
    softmax(l / T). The step takes rows that belong to the task further towards their label than others.

    temperature  T.
    magnitude    of the step: in pixels' units of [0, 1], or in standard deviations of each feature of a table. The
                 stepped input is not clipped, as in the authors' code.

    Costs two forward passes and one backward. Raises CannotCompose for predictors without gradients in x.
    Liang et al., arXiv 1706.02690.
    """

    reference: ClassVar = Reference(
        "Liang et al.",
        2018,
        arxiv="1706.02690",
        title="Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks",
    )
    temperature: float = 1000.0
    magnitude: float = 0.0014

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"ODIN: temperature must be positive, got {self.temperature}")
        if not self.magnitude >= 0:
            raise ValueError(f"ODIN: magnitude must be at least 0, got {self.magnitude}")

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        if not self.magnitude:
            return self._softened(look.classes(wanted_by="ODIN()").log_probs)
        if not all(part.differentiable for part in look.predictor.modules() if isinstance(part, Predictor)):
            raise CannotCompose(
                "ODIN() steps along the gradient in x, and this predictor has none. Write ODIN(magnitude=0.0), or use "
                "MaxProbability()"
            )
        with torch.enable_grad():
            x = look.x.detach().requires_grad_()
            log_probs = Look(look.predictor, x).classes(wanted_by="ODIN()").log_probs
            best = F.log_softmax(log_probs / self.temperature, dim=-1).amax(-1)
            (gradient,) = torch.autograd.grad(best.sum(), x)
        stepped = look.x + self.magnitude * self._unit(look) * gradient.sign()
        return self._softened(Look(look.predictor, stepped).classes(wanted_by="ODIN()").log_probs)

    def _softened(self, log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch"]:
        return _logits.max_probability(F.log_softmax(log_probs.double() / self.temperature, dim=-1))

    def _unit(self, look: Look) -> Tensor | float:
        """What magnitude 1 means: the range of a pixel, or a feature's standard deviation."""
        network = next(iter(look.predictor.networks()), None)
        if look.x.ndim == 4 or network is None:
            return 1.0
        std = look.x.new_tensor(network.signature.std)
        return rearrange(std, "f -> 1 f") if len(std) == look.x.shape[-1] else 1.0
