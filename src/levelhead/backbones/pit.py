"""Pooling-based vision transformer: fewer and wider tokens from stage to stage, as maps in a convolutional network."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.attention import SelfAttention
from levelhead.layers.drop_path import linear_rates
from levelhead.layers.initialise import transformer_normal
from levelhead.layers.normalise import Normalise
from levelhead.layers.pixels import image_shape
from levelhead.layers.token_pool import TokenPool
from levelhead.layers.tokens import ClassToken, Positions, ToTokens, ending, transformer_block
from levelhead.layers.transformer import HEADS, LAYER_NORM_EPS, check_stages, check_transformer, patch_grid
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference


@dataclass(frozen=True)
class PiT:
    """A ViT in stages: between them a depthwise convolution of stride 2 pools the tokens and widens their features.

    The defaults are PiT-Ti for images of 32 pixels: 961 tokens of 64 features, 256 of 128, 64 of 256.

    patch, stride  pixels a side of a patch, and between patches; they reach every pixel. (16, 8) for 224 pixels.
    depth, heads   blocks, and heads of dim_head features, a stage: a token has heads * dim_head features.
    mlp_ratio      width of the MLP over that of a token.
    qkv_bias       a bias in the layer that makes queries, keys and values.
    head           what the classifier reads: "cls", a learnt token, which passes the poolings through a linear layer
                   of its own; "gap", the mean of all tokens.
    drop_path      stochastic depth, 0 at the first block to this at the last.

    Features are behind the last LayerNorm. Linear layers ~ Normal(0, 0.02^2), cut at two units.
    """

    reference: ClassVar[Reference] = Reference(
        "Heo et al.", 2021, arxiv="2103.16302", title="Rethinking Spatial Dimensions of Vision Transformers"
    )
    patch: int = 2
    stride: int = 1
    depth: tuple[int, ...] = (2, 6, 4)
    heads: tuple[int, ...] = (2, 4, 8)
    dim_head: int = 32
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    head: str = "cls"
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        check_transformer(
            "PiT",
            positive={"patch": self.patch, "stride": self.stride, "dim_head": self.dim_head},
            mlp_ratio=self.mlp_ratio,
            drop_path=self.drop_path,
        )
        check_stages("PiT", depth=self.depth, heads=self.heads)
        if self.head not in HEADS:
            raise ValueError(f"PiT: head must be one of {', '.join(map(repr, HEADS))}; got {self.head!r}")
        if any(later % earlier for earlier, later in zip(self.heads, self.heads[1:], strict=False)):
            raise ValueError(f"PiT: heads of a stage wants a multiple of those of the stage before; got {self.heads}")

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stem, tokens, stage1, pool1, stage2, ..., norm, and first or pool, flatten."""
        channels, *sides = image_shape(signature, spec="PiT")
        grid = patch_grid("PiT", (sides[0], sides[1]), patch=self.patch, stride=self.stride)
        dim, prefix = self.heads[0] * self.dim_head, 1 if self.head == "cls" else 0
        tokens: OrderedDict[str, nn.Module] = OrderedDict(
            tokens=ToTokens(), positions=Positions(grid[0] * grid[1], dim)
        )
        if prefix:  # behind the positions: it has none
            tokens["class_token"] = ClassToken(dim)
        stages: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(signature.mean, signature.std),
            stem=nn.Conv2d(channels, dim, self.patch, stride=self.stride),
            tokens=nn.Sequential(tokens),
        )
        rates = linear_rates(self.depth, self.drop_path)
        for i, heads in enumerate(self.heads):
            if i:
                pool = TokenPool(dim, heads * self.dim_head, grid=grid, prefix=prefix)
                stages[f"pool{i}"], grid, dim = pool, pool.pooled, heads * self.dim_head
            blocks = [
                transformer_block(
                    dim,
                    SelfAttention(dim, heads=heads, qkv_bias=self.qkv_bias),
                    hidden=round(dim * self.mlp_ratio),
                    eps=LAYER_NORM_EPS,
                    drop_path=rate,
                    grid=grid,
                    prefix=prefix,
                )
                for rate in rates[i]
            ]
            stages[f"stage{i + 1}"] = nn.Sequential(*blocks)
        stages |= {"norm": nn.LayerNorm(dim, eps=LAYER_NORM_EPS), **ending(grid, prefix=prefix)}
        network = Network(nn.Sequential(stages), nn.Linear(dim, signature.num_outputs), signature, width=dim)
        transformer_normal(network.features)
        return network
