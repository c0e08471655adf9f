"""A head of hidden layers in place of the global pool: what averaging over pixels is compared with."""

import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.places import before_global_pool
from levelhead.network import Network
from levelhead.types import CannotCompose, Reference

IN_CODE = (
    "MLPHead: this network averages its last map in code, so there is no module to exchange. Use one there, "
    "nn.AdaptiveAvgPool2d(1)"
)
POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class MLPHead:
    """Hidden layers of ReLUs on the flattened last map; the global average pool in front, if there is one, goes.

    Global average pooling is the extreme case of a blur over feature points, so that a network with it is smoother than
    the same network with this head (arXiv 2105.12639, section 4).

    hidden  widths of the hidden layers, each followed by ReLU and dropout.
    p       rate of that dropout, in [0, 1). It acts in training alone, as in the authors' networks; `MCDropout` with
            where="existing" makes it draw.
    pool    the map is averaged down to so many pixels a side at most.

    Put it before surgeries that change the head. Raises CannotCompose on heads that are not linear, and where the
    average over pixels is no module.

    Park & Kim, arXiv 2105.12639.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim",
        2022,
        arxiv="2105.12639",
        title="Blurs Behave Like Ensembles: Spatial Smoothings to Improve Accuracy, Uncertainty, and Robustness",
    )
    redraws: ClassVar[bool] = True  # the head
    hidden: tuple[int, ...] = (4096, 4096)
    p: float = 0.5
    pool: int = 7

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"MLPHead: hidden wants widths of at least one layer, such as (4096, 4096); got {self.hidden}"
            )
        if not 0 <= self.p < 1:
            raise ValueError(f"MLPHead: p must be in [0, 1), got {self.p}")
        if self.pool < 1:
            raise ValueError(f"MLPHead: pool must be at least 1, got {self.pool}")

    def __call__(self, network: Network) -> Network:
        """The network with hidden layers, and a new last one."""
        if type(network.head) is not nn.Linear or network.channel != -1:
            kind = type(network.head).__name__
            raise CannotCompose(f"MLPHead wants a linear head on flat features, got {kind}: put mlp_head further left")
        network = self.unpooled(network)
        widths = (network.width, *self.hidden)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i, (width, out) in enumerate(itertools.pairwise(widths), start=1):
            layers |= {f"linear{i}": nn.Linear(width, out), f"act{i}": nn.ReLU(), f"dropout{i}": nn.Dropout(self.p)}
        taken = sum(name.startswith("mlp") for name, _ in network.features.named_children())
        name = f"mlp{taken + 1}" if taken else "mlp"
        network = network.appended(nn.Sequential(layers), name=name, author="MLPHead")
        last = nn.Linear(widths[-1], network.num_outputs)
        return network.replace(lambda name, _: name == "head", lambda _: last, within="head", author="MLPHead")

    def unpooled(self, network: Network) -> Network:
        """The network without its global average pool."""
        trace = network.trace()
        pools = [call for call in trace.of(*POOLS) if call.collapses]
        if not pools:
            found, left = before_global_pool(trace)
            if left or any(place.behind for place in found):
                raise CannotCompose(
                    "MLPHead: this network averages its last map in code, so there is no module to exchange; use a "
                    "backbone whose global pool is one, such as resnet20"
                )
            return network
        height, width = pools[-1].pixels
        smaller = nn.AdaptiveAvgPool2d((min(self.pool, height), min(self.pool, width)))
        return network.replace(lambda name, _: name == pools[-1].name, lambda _: smaller, author="MLPHead")
