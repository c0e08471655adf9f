"""What post-hoc steps minimise on held-out rows."""

import torch

from levelhead.predictive import Predictive
from levelhead.types import Scalar, Targets


def held_out_nll(belief: Predictive, y: Targets, *, void: int | None = None) -> Scalar:
    """Mean negative log likelihood of the mixture over rows and sites whose label is not `void`, in nats.

    Soft labels give the cross-entropy, targets the negative log density. Raises ValueError where no row counts.
    """
    if void is None or y.is_floating_point():
        return -belief.log_prob(y).double().mean()
    kept = y != void
    if not bool(kept.any()):
        raise ValueError(f"y: every label is void ({void}); fitting on held-out rows needs at least one that counts")
    return -belief.log_prob(torch.where(kept, y, 0))[kept].double().mean()
