"""Residual networks, small (three stages, CIFAR) and large (four stages, ImageNet): the depth is data."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from torch import nn

from levelhead.layers.initialise import he_normal
from levelhead.layers.normalise import Normalise
from levelhead.layers.norms import check_norm
from levelhead.layers.pixels import image_shape
from levelhead.layers.residual import Design, residual_stages
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

STEMS = ("small", "imagenet")


class Layout(NamedTuple):
    """What a depth means: the blocks of each stage, their kind, and the width of the first stage."""

    blocks: tuple[int, ...]
    bottleneck: bool
    width: int


FOUR_STAGES = {
    18: Layout((2, 2, 2, 2), bottleneck=False, width=64),
    34: Layout((3, 4, 6, 3), bottleneck=False, width=64),
    50: Layout((3, 4, 6, 3), bottleneck=True, width=64),
    101: Layout((3, 4, 23, 3), bottleneck=True, width=64),
}


def layout(depth: int) -> Layout | None:
    """Four stages for 18, 34, 50, 101; three of n basic blocks for 6n + 2; None for other depths."""
    blocks, rest = divmod(depth - 2, 6)
    if depth in FOUR_STAGES:
        return FOUR_STAGES[depth]
    return Layout((blocks,) * 3, bottleneck=False, width=16) if blocks >= 1 and rest == 0 else None


@dataclass(frozen=True)
class ResNet:
    """ResNet of any image size: three stages of basic blocks (8, 14, 20, ..., 56, 110) or four (18, 34, 50, 101).

    depth   weighted layers on the longest path. 50 and 101 have bottleneck blocks with the stride in the 3 x 3
            convolution ("v1.5").
    width   channels of the first stage, doubled at each later one; None for the published 16 (three stages) or 64.
    stem    "small": 3 x 3 convolution, for images of some 28 to 64 pixels; "imagenet": 7 x 7 / 2 and pooling.
    preact  norm and activation before each convolution, and a clean path along the shortcuts (arXiv 1603.05027).
    norm    "batch" or "group".

    Shortcuts that change shape are projections, 1 x 1 strided convolutions (see `layers.residual`), also for the small
    depths, whose paper padded with zeros: 2,752 parameters more. Convolutions ~ Normal(0, 2 / fan_out).
    """

    reference: ClassVar[Reference] = Reference(
        "He et al.", 2015, arxiv="1512.03385", title="Deep Residual Learning for Image Recognition"
    )
    depth: int = 20
    width: int | None = None
    stem: str = "small"
    preact: bool = False
    norm: str = "batch"

    def __post_init__(self) -> None:
        if layout(self.depth) is None:
            raise ValueError(
                f"ResNet: depth must be {', '.join(map(str, FOUR_STAGES))} (four stages) or 6n + 2, such as "
                f"8, 20, 32, 56 (three stages); got {self.depth}"
            )
        if self.width is not None and self.width < 1:
            raise ValueError(f"ResNet: width wants a positive number of channels, got {self.width}")
        if self.stem not in STEMS:
            raise ValueError(f"ResNet: stem must be one of {', '.join(map(repr, STEMS))}; got {self.stem!r}")
        check_norm("ResNet", self.norm, allowed=("batch", "group"))

    @classmethod
    def shorthand(cls, text: str) -> Self | None:
        """`resnet20` and `preact_resnet18`; None for anything else."""
        match = re.fullmatch(r"(preact_?)?resnet[_-]?(\d+)", text)
        return None if match is None else cls(depth=int(match[2]), preact=match[1] is not None)

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stem, stage1, ..., (final,) pool, flatten."""
        channels, *_ = image_shape(signature, spec="ResNet")
        shape = layout(self.depth)
        assert shape is not None, "checked in __post_init__"
        width = self.width or shape.width
        stages, reached = residual_stages(
            channels,
            stem_kind=self.stem,
            stem_width=width,
            widths=[width * 2**i for i in range(len(shape.blocks))],
            blocks=shape.blocks,
            design=Design(shape.bottleneck, self.preact, self.norm),
        )
        stages = OrderedDict(normalise=Normalise(signature.mean, signature.std), **stages)
        network = Network(nn.Sequential(stages), nn.Linear(reached, signature.num_outputs), signature, width=reached)
        he_normal(network)
        return network
