"""Label smoothing: targets that leave some probability to the other classes."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from levelhead.forward import Forward, Objective, Stateless
from levelhead.likelihood import Categorical, soft
from levelhead.types import CannotCompose, Reference, Scalar, Targets


@dataclass(frozen=True)
class LabelSmoothing(Stateless):
    """Cross-entropy to (1 - smoothing) 1_y + smoothing / num_classes.

    smoothing  in [0, 1). Raises ValueError otherwise, and CannotCompose on targets that are no classes or that have a
               label which does not count.

    Szegedy et al., arXiv 1512.00567.
    """

    reference: ClassVar[Reference] = Reference(
        "Szegedy et al.", 2016, arxiv="1512.00567", title="Rethinking the Inception architecture for computer vision"
    )
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"LabelSmoothing: smoothing must be in [0, 1), got {self.smoothing}")

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on smoothed labels."""
        likelihood = forward.network.likelihood
        if not isinstance(likelihood, Categorical) or likelihood.void is not None:
            raise CannotCompose(
                f"LabelSmoothing smooths labels of classes that all count, not those of {likelihood}; leave it out here"
            )
        return inner(forward.on(y=self.smoothed(forward.batch.y, likelihood.num_classes).to(forward.outputs.dtype)))

    def smoothed(self, y: Targets, num_classes: int) -> torch.Tensor:
        """The targets as probabilities, float (..., class)."""
        return soft(y, num_classes, asker="LabelSmoothing") * (1 - self.smoothing) + self.smoothing / num_classes
