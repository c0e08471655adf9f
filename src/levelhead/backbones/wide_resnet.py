"""Wide residual networks: few layers, many channels, pre-activation."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from levelhead.layers.initialise import he_normal
from levelhead.layers.normalise import Normalise
from levelhead.layers.norms import check_norm
from levelhead.layers.pixels import image_shape
from levelhead.layers.residual import Design, residual_stages
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

STEM_WIDTH = 16  # channels of the stem, whatever the factor


@dataclass(frozen=True)
class WideResNet:
    """WRN-depth-width for small images: three stages of (depth - 4) / 6 pre-activation basic blocks.

    depth  6n + 4: 10, 16, 22, 28, 40, ...
    width  factor on the 16, 32, 64 channels of the stages.
    norm   "batch" or "group".

    WRN-28-10 has 36.5 million parameters. Dropout between the convolutions is a surgery here. Convolutions
    ~ Normal(0, 2 / fan_out).
    """

    reference: ClassVar[Reference] = Reference(
        "Zagoruyko and Komodakis", 2016, arxiv="1605.07146", title="Wide Residual Networks"
    )
    depth: int = 28
    width: int = 10
    norm: str = "batch"

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"WideResNet: depth must be 6n + 4, such as 10, 16, 28 or 40; got {self.depth}")
        if self.width < 1:
            raise ValueError(f"WideResNet: width wants a factor of at least 1, got {self.width}")
        check_norm("WideResNet", self.norm, allowed=("batch", "group"))

    @classmethod
    def shorthand(cls, text: str) -> Self | None:
        """`wrn28_10`, `wrn-28-10`, `wide_resnet28_10`; None for anything else."""
        match = re.fullmatch(r"(?:wrn|wide_?resnet)[_-]?(\d+)[_-](\d+)", text)
        return None if match is None else cls(depth=int(match[1]), width=int(match[2]))

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stem, stage1, stage2, stage3, final, pool, flatten."""
        channels, *_ = image_shape(signature, spec="WideResNet")
        stages, reached = residual_stages(
            channels,
            stem_kind="small",
            stem_width=STEM_WIDTH,
            widths=[STEM_WIDTH * self.width * 2**i for i in range(3)],
            blocks=((self.depth - 4) // 6,) * 3,
            design=Design(bottleneck=False, preact=True, norm=self.norm),
        )
        stages = OrderedDict(normalise=Normalise(signature.mean, signature.std), **stages)
        network = Network(nn.Sequential(stages), nn.Linear(reached, signature.num_outputs), signature, width=reached)
        he_normal(network)
        return network
