"""Several heads on one trunk: the cheapest members there are."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.per_member import fresh_heads
from levelhead.network import Network
from levelhead.types import CannotCompose, Reference

HEAD = "MultiHead wants a linear head, got {kind}: put multi_head before the surgery that changes the head"


@dataclass(frozen=True)
class MultiHead:
    """num_members linear heads, each drawn anew, on the features of one trunk.

    Every member sees every batch. Alone, the heads agree soon, for they see the same features and labels; with the
    objective `sub_batches` they see other rows, and `distilled` teaches each head another member of an ensemble.

    num_members  M heads.

    Raises CannotCompose on heads that are not linear, and where another surgery declared another number of members.

    Lee et al., arXiv 1511.06314.
    """

    reference: ClassVar[Reference] = Reference(
        "Lee et al.",
        2015,
        arxiv="1511.06314",
        title="Why M Heads are Better than One: Training a Diverse Ensemble of Deep Networks",
    )
    redraws: ClassVar[bool] = True  # the heads
    num_members: int = 4

    def __post_init__(self) -> None:
        if self.num_members < 1:
            raise ValueError(f"MultiHead: num_members must be at least 1, got {self.num_members}")

    def __call__(self, network: Network) -> Network:
        """The network with num_members members."""
        if type(network.head) is not nn.Linear:
            raise CannotCompose(HEAD.format(kind=type(network.head).__name__))
        heads = fresh_heads(network.head, self.num_members, network.width)
        declared = network.copy().declare(num_members=self.num_members)
        return declared.replace(lambda name, _: name == "head", lambda _: heads, within="head", author="MultiHead")
