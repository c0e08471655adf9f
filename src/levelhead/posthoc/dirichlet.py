"""Dirichlet calibration: the map that is right if each class's probability vectors are Dirichlet distributed."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch

from levelhead.predictor import Predictor
from levelhead.recalibration.affine import Affine, fitted_affine, off_diagonal
from levelhead.recalibration.held_out import all_right, class_rows, warning_all_right
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class Dirichlet:
    """q = softmax(W log p + b),  minimising mean -log q_y + off_diagonal sum_{i != j} W_ij^2 + intercept sum_j b_j^2.

    Acts on log p itself, which any predictor has: temperature scaling is W = 1/T, b = 0. Labels may change. A mixture
    is pooled first and calibrated then; inside a combinator each member gets its own (W, b).

    off_diagonal, intercept  the two penalties (ODIR). The paper chooses them by cross-validation between 1e-7 and 1e3;
                             the defaults are this library's.

    Raises CannotCompose for real targets, and after conformal or selective steps.

    Kull et al., arXiv 1910.12656.
    """

    reference: ClassVar = Reference(
        "Kull et al.",
        2019,
        arxiv="1910.12656",
        title="Beyond Temperature Scaling: Obtaining Well-calibrated Multi-class Probabilities with Dirichlet "
        "Calibration",
    )
    off_diagonal: float = 1e-2
    intercept: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.off_diagonal, self.intercept) < 0:
            raise ValueError(f"Dirichlet: penalties must not be negative, got {self.off_diagonal} and {self.intercept}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, calibrated."""
        rows = class_rows(predictor, task, step="Dirichlet()")
        if all_right(rows):
            warnings.warn(warning_all_right("Dirichlet()", rows), stacklevel=2)
        weight, bias = fitted_affine(
            rows,
            weight=torch.eye(rows.log_probs.shape[-1]),
            centred=False,
            penalty=lambda w, b: self.off_diagonal * off_diagonal(w) + self.intercept * b.square().sum(),
        )
        return Affine(predictor, weight, bias, centred=False, fitted_on=task.calibration.digest)
