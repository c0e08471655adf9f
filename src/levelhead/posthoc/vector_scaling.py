"""Vector scaling: a slope and a shift for each class's logit, fitted on held-out rows."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from levelhead.predictor import Predictor
from levelhead.recalibration.affine import Affine, fitted_affine
from levelhead.recalibration.held_out import all_right, class_rows, warning_all_right
from levelhead.tasks.task import Task
from levelhead.types import Reference, Scalar


@dataclass(frozen=True)
class VectorScaling:
    """q = softmax(w * z + b),  z the mixture's centred log probabilities, (w, b) of least mean -log q_y on calibration.

    z is a network's own logits up to the shift that softmax removes, so w = 1/T, b = 0 is temperature scaling. Labels
    may change. A mixture is pooled first and calibrated then; inside a combinator each member gets its own (w, b).

    shared  one slope for all classes: bias-corrected temperature scaling (Alexandari et al., arXiv 1901.06852).

    A ridge of 1e-6 pulls to w = 1, b = 0: it fixes the sum of b, and stops the fit where all rows are right (a warning
    says so). Raises CannotCompose for real targets, and after conformal or selective steps.

    Guo et al., arXiv 1706.04599.
    """

    reference: ClassVar = Reference(
        "Guo et al.", 2017, arxiv="1706.04599", title="On Calibration of Modern Neural Networks"
    )
    shared: bool = False

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, rescaled."""
        rows = class_rows(predictor, task, step="VectorScaling()")
        if all_right(rows):
            warnings.warn(warning_all_right("VectorScaling()", rows), stacklevel=2)
        start = torch.ones_like(rows.log_probs[0])
        weight, bias = fitted_affine(rows, weight=start, centred=True, penalty=free, shared=self.shared)
        return Affine(predictor, weight, bias, centred=True, fitted_on=task.calibration.digest)


def free(weight: Tensor, _: Tensor) -> Scalar:
    """No penalty."""
    return weight.new_zeros(())
