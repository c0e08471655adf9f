"""Swin transformer: attention in windows that are shifted in every other block, on maps that shrink by stage."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.drop_path import linear_rates
from levelhead.layers.initialise import transformer_normal
from levelhead.layers.normalise import Normalise
from levelhead.layers.pixels import image_shape
from levelhead.layers.tokens import ChannelsFirst, ChannelsLast, transformer_block
from levelhead.layers.transformer import check_stages, check_transformer, patch_grid
from levelhead.layers.window_layers import PatchMerging, WindowedLinearAttention
from levelhead.layers.windows import Windows
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Swin:
    """Transformer blocks whose attention stays in windows, every other block in windows shifted by half their side.

    The defaults are Swin-Ti for images of 32 pixels: maps of 32, 16, 8 and 4 pixels, 96 to 768 channels.

    patch         pixels a side of a patch; divides the image's height and width. 4 for 224 pixels.
    depth, heads  blocks, and heads of dim_head features, a stage. Channels: heads * dim_head; a stage has twice those
                  of the one before.
    window        pixels a side, 7 for maps of 224 / 4 pixels. A smaller map is one window, without a shift; one that
                  windows do not tile is padded, and the padding masked.
    mlp_ratio     width of the MLP over that of the map.
    qkv_bias      a bias in the layer that makes queries, keys and values.
    drop_path     stochastic depth, 0 at the first block to this at the last.

    Tokens are the pixels of maps (batch, channel, height, width) between blocks. A table of relative positions for each
    head. Linear layers ~ Normal(0, 0.02^2), cut at two units.
    """

    reference: ClassVar[Reference] = Reference(
        "Liu et al.",
        2021,
        arxiv="2103.14030",
        title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
    )
    patch: int = 1
    depth: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    dim_head: int = 32
    window: int = 4
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        check_transformer(
            "Swin",
            positive={"patch": self.patch, "dim_head": self.dim_head, "window": self.window},
            mlp_ratio=self.mlp_ratio,
            drop_path=self.drop_path,
        )
        check_stages("Swin", depth=self.depth, heads=self.heads)
        if any(later != 2 * earlier for earlier, later in zip(self.heads, self.heads[1:], strict=False)):
            raise ValueError(f"Swin: heads of a stage wants twice those of the stage before; got {self.heads}")

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stem, stage1, merge1, stage2, ..., norm, pool, flatten."""
        channels, *sides = image_shape(signature, spec="Swin")
        grid = patch_grid("Swin", (sides[0], sides[1]), patch=self.patch)
        dim = self.heads[0] * self.dim_head
        stem = OrderedDict(conv=nn.Conv2d(channels, dim, self.patch, stride=self.patch), norm=layer_norm(dim))
        stages: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(signature.mean, signature.std), stem=nn.Sequential(stem)
        )
        rates = linear_rates(self.depth, self.drop_path)
        for i, heads in enumerate(self.heads):
            if i:
                stages[f"merge{i}"] = PatchMerging(dim, 2 * dim, eps=LAYER_NORM_EPS)
                grid, dim = ((grid[0] + 1) // 2, (grid[1] + 1) // 2), 2 * dim
            blocks = (self._block(dim, heads, grid, place, rate) for place, rate in enumerate(rates[i]))
            stages[f"stage{i + 1}"] = nn.Sequential(*blocks)
        stages |= {"norm": layer_norm(dim), "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        network = Network(nn.Sequential(stages), nn.Linear(dim, signature.num_outputs), signature, width=dim)
        transformer_normal(network.features)
        return network

    def _block(self, dim: int, heads: int, grid: tuple[int, int], place: int, drop_path: float) -> nn.Sequential:
        whole = max(grid) <= self.window
        windows = Windows(min(self.window, max(grid)), 0 if whole or place % 2 == 0 else self.window // 2)
        return transformer_block(
            dim,
            WindowedLinearAttention(dim, windows, heads=heads, qkv_bias=self.qkv_bias),
            hidden=round(dim * self.mlp_ratio),
            eps=LAYER_NORM_EPS,
            drop_path=drop_path,
        )


def layer_norm(dim: int) -> nn.Sequential:
    """LayerNorm over the channels of a map."""
    layers = OrderedDict(last=ChannelsLast(), norm=nn.LayerNorm(dim, eps=LAYER_NORM_EPS), first=ChannelsFirst())
    return nn.Sequential(layers)
