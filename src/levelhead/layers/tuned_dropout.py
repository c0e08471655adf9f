"""Dropout at a rate of its own for every row."""

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.declared import Conditional


class TunedDropout(Conditional):
    """x * mask / (1 - p_i) in training, each value of row i's mask 0 with probability p_i; x itself otherwise.

    No gradient goes to the rates: they are tuned through the weights' response to them.

    place  of the rate, among the hyper-parameters.
    """

    def __init__(self, num_members: int, place: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.place = place

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """Masked and rescaled, so that the mean stays."""
        if not self.training:
            return x
        kept = 1 - self.setting_rows(len(x))[:, self.place].detach().to(x.dtype)
        kept = kept.reshape(len(x), *(1,) * (x.ndim - 1))
        return x * (torch.rand_like(x) < kept) / kept
