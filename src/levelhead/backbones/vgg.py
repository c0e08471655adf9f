"""VGG for small images: stages of 3 x 3 convolutions between poolings, a mean over sites and one linear layer."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from levelhead.layers.initialise import he_normal
from levelhead.layers.normalise import Normalise
from levelhead.layers.norms import check_norm, norm
from levelhead.layers.pixels import image_shape
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FACTORS = (1, 2, 4, 8, 8)


@dataclass(frozen=True)
class VGG:
    """VGG-11, 13, 16 or 19, any image size: five stages, each ending in 2 x 2 max-pooling (rounding up, so that 28
    pixels survive all five).

    depth  convolutions and linear layers as the paper counts them, with its three linear layers; here is one, as
           usual for small images.
    width  channels of the first stage; the stages have 1, 2, 4, 8, 8 times as many.
    norm   "batch" or "group" after each convolution, which then has no bias; "none" as in the paper.
    preact norm and activation before each convolution but the first, and once before the mean over sites.

    Convolutions ~ Normal(0, 2 / fan_out).
    """

    reference: ClassVar[Reference] = Reference(
        "Simonyan and Zisserman",
        2014,
        arxiv="1409.1556",
        title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
    )
    depth: int = 11
    width: int = 64
    norm: str = "batch"
    preact: bool = False

    def __post_init__(self) -> None:
        if self.depth not in CONVOLUTIONS:
            raise ValueError(f"VGG: depth must be one of {', '.join(map(str, CONVOLUTIONS))}; got {self.depth}")
        if self.width < 1:
            raise ValueError(f"VGG: width wants a positive number of channels, got {self.width}")
        check_norm("VGG", self.norm)

    @classmethod
    def shorthand(cls, text: str) -> Self | None:
        """`vgg16` and `preact_vgg16`; None for anything else."""
        match = re.fullmatch(r"(preact_?)?vgg[_-]?(\d+)", text)
        return None if match is None else cls(depth=int(match[2]), preact=match[1] is not None)

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stage1, ..., stage5, (final,) pool, flatten."""
        channels, *_ = image_shape(signature, spec="VGG")
        stages: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(signature.mean, signature.std))
        for i, (count, factor) in enumerate(zip(CONVOLUTIONS[self.depth], FACTORS, strict=True), start=1):
            stages[f"stage{i}"] = self._stage(channels, self.width * factor, count, first=i == 1)
            channels = self.width * factor
        if self.preact:
            stages["final"] = nn.Sequential(OrderedDict(norm=norm(self.norm, channels), act=nn.ReLU()))
        stages |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        network = Network(nn.Sequential(stages), nn.Linear(channels, signature.num_outputs), signature, width=channels)
        he_normal(network)
        return network

    def _stage(self, channels: int, width: int, count: int, *, first: bool) -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, count + 1):
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=self.norm == "none")
            activated = self._activated(channels if self.preact else width, i)
            if not self.preact:
                layers |= {f"conv{i}": conv, **activated}
            elif first and i == 1:
                layers[f"conv{i}"] = conv
            else:
                layers |= {**activated, f"conv{i}": conv}
            channels = width
        layers["pool"] = nn.MaxPool2d(2, ceil_mode=True)
        return nn.Sequential(layers)

    def _activated(self, channels: int, i: int) -> dict[str, nn.Module]:
        own = {} if self.norm == "none" else {f"norm{i}": norm(self.norm, channels)}
        return {**own, f"act{i}": nn.ReLU()}
