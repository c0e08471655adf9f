"""Vision transformer: patches of the image as tokens, each of which sees all others."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from levelhead.layers.attention import Neighbourhood, SelfAttention
from levelhead.layers.drop_path import linear_rates
from levelhead.layers.initialise import transformer_normal
from levelhead.layers.normalise import Normalise
from levelhead.layers.pixels import image_shape
from levelhead.layers.tokens import ClassToken, Positions, ToTokens, ending, transformer_block
from levelhead.layers.transformer import HEADS, LAYER_NORM_EPS, check_transformer, patch_grid
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

NAMES = {"ti": 3, "s": 6, "b": 12}  # heads of 64 features, twelve blocks


@dataclass(frozen=True)
class ViT:
    """x + attention(norm(x)), x + mlp(norm(x)), `depth` times, over patch x patch pixels as tokens.

    The defaults are ViT-Ti for images of 32 pixels: 256 tokens of 192 features.

    patch          pixels a side of a patch; divides the image's height and width. 16 for 224 pixels.
    depth          blocks, each of attention and MLP.
    heads          of the attention, dim_head features each: a token has heads * dim_head.
    mlp_ratio      width of the MLP over that of a token.
    qkv_bias       a bias in the layer that makes queries, keys and values; the authors of the analyses have none at 32
                   pixels, the published ImageNet weights one.
    head           what the classifier reads: "cls", a learnt token; "gap", the mean of all tokens.
    neighbourhood  k: a token sees the k x k around it alone ("Conv-ViT", to ask whether attention to everything helps);
                   needs head="gap". None: all.
    drop_path      stochastic depth, 0 at the first block to this at the last.

    Features are behind the last LayerNorm. Linear layers ~ Normal(0, 0.02^2), cut at two units.
    """

    reference: ClassVar[Reference] = Reference(
        "Dosovitskiy et al.",
        2021,
        arxiv="2010.11929",
        title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    )
    patch: int = 2
    depth: int = 12
    heads: int = 3
    dim_head: int = 64
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    head: str = "cls"
    neighbourhood: int | None = None
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        check_transformer(
            "ViT",
            positive={"patch": self.patch, "depth": self.depth, "heads": self.heads, "dim_head": self.dim_head},
            mlp_ratio=self.mlp_ratio,
            drop_path=self.drop_path,
        )
        if self.head not in HEADS:
            raise ValueError(f"ViT: head must be one of {', '.join(map(repr, HEADS))}; got {self.head!r}")
        if self.neighbourhood is not None and self.neighbourhood < 1:
            raise ValueError(f"ViT: neighbourhood wants at least 1 token a side, got {self.neighbourhood}")
        if self.neighbourhood is not None and self.head == "cls":
            raise ValueError('ViT: neighbourhood needs head="gap": a class token is next to nothing')

    @classmethod
    def shorthand(cls, text: str) -> Self | None:
        """`vit_ti`, `vit-s_16` (a patch of 16); None for anything else."""
        match = re.fullmatch(r"vit[_-]?(ti|s|b)(?:[_-](\d+))?", text)
        return None if match is None else cls(heads=NAMES[match[1]], patch=int(match[2] or 2))

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stem, tokens, stage1, norm, and first or map, pool, flatten."""
        channels, height, width = image_shape(signature, spec="ViT")
        grid = patch_grid("ViT", (height, width), patch=self.patch)
        dim, prefix = self.heads * self.dim_head, 1 if self.head == "cls" else 0
        tokens: OrderedDict[str, nn.Module] = OrderedDict(tokens=ToTokens())
        if prefix:
            tokens["class_token"] = ClassToken(dim)
        tokens["positions"] = Positions(prefix + grid[0] * grid[1], dim)
        blocks = [self._block(grid, rate) for rate in linear_rates((self.depth,), self.drop_path)[0]]
        stages: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(signature.mean, signature.std),
            stem=nn.Conv2d(channels, dim, self.patch, stride=self.patch),
            tokens=nn.Sequential(tokens),
            stage1=nn.Sequential(*blocks),
            norm=nn.LayerNorm(dim, eps=LAYER_NORM_EPS),
            **ending(grid, prefix=prefix),
        )
        network = Network(nn.Sequential(stages), nn.Linear(dim, signature.num_outputs), signature, width=dim)
        transformer_normal(network.features)
        return network

    def _block(self, grid: tuple[int, int], drop_path: float) -> nn.Sequential:
        dim = self.heads * self.dim_head
        within = None if self.neighbourhood is None else Neighbourhood(grid, self.neighbourhood)
        return transformer_block(
            dim,
            SelfAttention(dim, heads=self.heads, qkv_bias=self.qkv_bias, within=within),
            hidden=round(dim * self.mlp_ratio),
            eps=LAYER_NORM_EPS,
            drop_path=drop_path,
            grid=grid,
            prefix=1 if self.head == "cls" else 0,
        )
