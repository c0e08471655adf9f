"""AlterNet: a residual network whose stages end in local self-attention."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from levelhead.layers.drop_path import linear_rates
from levelhead.layers.initialise import he_normal
from levelhead.layers.local_attention import checked_heads, head_size, tail_pattern, window_for
from levelhead.layers.msa_block import VARIANTS, MSABlock
from levelhead.layers.normalise import Normalise
from levelhead.layers.norms import check_norm
from levelhead.layers.pixels import image_shape
from levelhead.layers.residual import Design, Spot, block, residual_stages
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 4), 50: (3, 4, 6, 4), 101: (3, 4, 23, 4)}
STEMS = ("small", "imagenet")


@dataclass(frozen=True)
class AlterNet:
    """Pre-activation ResNet in which the last block, or every other of the last blocks, of a stage is an MSA block.

    Convolutions are high-pass and MSAs low-pass filters ("trainable spatial smoothing"), so an MSA belongs at the end
    of a stage. A stage of n blocks with m MSAs reads [conv] * (n - 2m) + [conv, MSA] * m.

    depth          18 (basic blocks), 34 (basic), 50 or 101 (bottleneck); the last stage has 4 blocks from 34 on.
    msa            MSA blocks a stage. None: (0, 1, 1, 1) for 18; (0, 1, 1, 2) for the others, the best of the paper's
                   sweep on CIFAR-100, or with the ImageNet stem (0, 1, 3, 2), as in the authors' code.
    heads          a stage.
    dim_head       features a head; None for three times the block's width over the heads, 64 for a width of 64.
    window         pixels a side; None for each map's own: 7 where that tiles it, else 4.
    width          channels of the first stage, doubled at each later one (times 4 behind bottlenecks).
    stem           "small": 3 x 3 convolution; "imagenet": 7 x 7 / 2 and pooling.
    norm           "batch" or "group".
    variant        order of the MSA block: "B" pre-activation, "A" post-activation (see `layers.msa_block`).
    per_head_bias  a table of relative positions for each head; the authors share one.
    drop_path      stochastic depth, 0 at the first block to this at the last.

    Convolutions ~ Normal(0, 2 / fan_out). With msa=(0, 0, 0, 0) it is a pre-activation ResNet.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim", 2022, arxiv="2202.06709", title="How Do Vision Transformers Work?"
    )
    depth: int = 50
    msa: tuple[int, ...] | None = None
    heads: tuple[int, ...] = (3, 6, 12, 24)
    dim_head: int | None = None
    window: int | None = None
    width: int = 64
    stem: str = "small"
    norm: str = "batch"
    variant: str = "B"
    per_head_bias: bool = False
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ValueError(f"AlterNet: depth must be one of {', '.join(map(str, BLOCKS))}; got {self.depth}")
        if self.stem not in STEMS:
            raise ValueError(f"AlterNet: stem must be one of {', '.join(map(repr, STEMS))}; got {self.stem!r}")
        if self.width < 1:
            raise ValueError(f"AlterNet: width wants a positive number of channels, got {self.width}")
        if self.variant not in VARIANTS:
            raise ValueError(f"AlterNet: variant must be one of {', '.join(map(repr, VARIANTS))}; got {self.variant!r}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"AlterNet: drop_path must be in [0, 1), got {self.drop_path}")
        check_norm("AlterNet", self.norm, allowed=("batch", "group"))
        checked_heads("AlterNet", self.heads, self.dim_head, self.window)
        for name in ("heads", "msa"):
            given = getattr(self, name)
            if given is not None and len(given) != len(BLOCKS[self.depth]):
                raise ValueError(f"AlterNet: {name} wants {len(BLOCKS[self.depth])} numbers, one a stage; got {given}")
        try:
            self.patterns()
        except ValueError as error:
            raise ValueError(f"AlterNet: msa={self.msa}: {error}") from None

    @classmethod
    def shorthand(cls, text: str) -> Self | None:
        """`alternet18`, `alter-resnet-50`; None for anything else."""
        match = re.fullmatch(r"alter[_-]?(?:res)?net[_-]?(\d+)", text)
        return None if match is None else cls(depth=int(match[1]))

    def patterns(self) -> list[tuple[bool, ...]]:
        """For each stage, which blocks are MSAs."""
        msa = self.msa
        if msa is None:
            msa = (0, 1, 1, 1) if self.depth == 18 else (0, 1, 1, 2) if self.stem == "small" else (0, 1, 3, 2)
        return [tail_pattern(count, m) for count, m in zip(BLOCKS[self.depth], msa, strict=True)]

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stem, stage1, ..., stage4, final, pool, flatten."""
        channels, height, width = image_shape(signature, spec="AlterNet")
        blocks, patterns = BLOCKS[self.depth], self.patterns()
        design = Design(bottleneck=self.depth >= 50, preact=True, norm=self.norm)
        rates = linear_rates(blocks, self.drop_path)
        sizes = map_sizes(height, width, len(blocks), stem=self.stem)

        def make(spot: Spot) -> nn.Module:
            rate = rates[spot.stage][spot.place]
            if not patterns[spot.stage][spot.place]:
                return block(spot.channels, spot.width, stride=spot.stride, design=design, drop_path=rate)
            heads = self.heads[spot.stage]
            return MSABlock(
                spot.channels,
                design.out(spot.width),
                width=spot.width,
                heads=heads,
                dim_head=self.dim_head or head_size(spot.width, heads),
                window=self.window or window_for(*sizes[spot.stage]),
                per_head_bias=self.per_head_bias,
                norm=self.norm,
                variant=self.variant,
                drop_path=rate,
            )

        stages, reached = residual_stages(
            channels,
            stem_kind=self.stem,
            stem_width=self.width,
            widths=[self.width * 2**i for i in range(len(blocks))],
            blocks=blocks,
            design=design,
            make=make,
        )
        stages = OrderedDict(normalise=Normalise(signature.mean, signature.std), **stages)
        network = Network(nn.Sequential(stages), nn.Linear(reached, signature.num_outputs), signature, width=reached)
        he_normal(network)
        return network


def map_sizes(height: int, width: int, stages: int, *, stem: str) -> list[tuple[int, int]]:
    """The maps' sizes in each stage: halved and rounded up at each step, twice in the ImageNet stem."""
    skipped = 2 if stem == "imagenet" else 0
    sizes = [(height, width)]
    for _ in range(skipped + stages - 1):
        sizes.append(tuple(-(-size // 2) for size in sizes[-1]))  # type: ignore[arg-type]  # two numbers
    return sizes[skipped:]
