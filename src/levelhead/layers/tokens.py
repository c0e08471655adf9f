"""Tokens of transformers: from maps and back, the class token, positions, and the sum around a branch."""

from collections import OrderedDict

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from levelhead.layers.drop_path import DropPath


class ChannelsLast(nn.Module):
    """(batch, channel, h, w) to (batch, h, w, channel), a view, for linear layers and LayerNorm."""

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch h w channel"]:
        """The channels behind the pixels."""
        return rearrange(x, "b c h w -> b h w c")


class ChannelsFirst(nn.Module):
    """(batch, h, w, channel) to (batch, channel, h, w), a view."""

    def forward(self, x: Float[Tensor, "batch h w channel"]) -> Float[Tensor, "batch channel h w"]:
        """The channels before the pixels."""
        return rearrange(x, "b h w c -> b c h w")


class ToTokens(nn.Module):
    """(batch, channel, h, w) to (batch, token, channel), row by row."""

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch token channel"]:
        """A token a pixel."""
        return rearrange(x, "b c h w -> b (h w) c")


class ToMap(nn.Module):
    """(batch, token, channel) to (batch, channel, h, w), without the `prefix` tokens in front."""

    def __init__(self, grid: tuple[int, int], *, prefix: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix

    def forward(self, x: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch channel h w"]:
        """The map of the tokens."""
        return rearrange(x[:, self.prefix :], "b (h w) c -> b c h w", h=self.grid[0])

    def extra_repr(self) -> str:
        """The grid."""
        return f"grid={self.grid}, prefix={self.prefix}"


class Enumerate(nn.Module):
    """For every row the numbers 0, 1, ..., `count` - 1, with which an embedding gives each row its own copy.

    So the embedding's curvature is known (`curvature.uses`), and so is what each row does to it.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Float[Tensor, "batch ..."]) -> Int[Tensor, "batch count"]:
        """The numbers."""
        return torch.arange(self.count, device=x.device).expand(len(x), -1)


class Prepend(nn.Module):
    """Tokens in front of others."""

    def forward(
        self, first: Float[Tensor, "batch some dim"], rest: Float[Tensor, "batch token dim"]
    ) -> Float[Tensor, "batch more dim"]:
        """All of them."""
        return torch.cat([first.to(rest.dtype), rest], dim=1)


def table(count: int, dim: int) -> nn.Embedding:
    """`count` learnt vectors from Normal(0, 0.02^2)."""
    made = nn.Embedding(count, dim)
    nn.init.normal_(made.weight, std=0.02)
    return made


class ClassToken(nn.Module):
    """A learnt token in front of the others."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.number = Enumerate(1)
        self.token = table(1, dim)
        self.prepend = Prepend()

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch more dim"]:
        """One token more."""
        return self.prepend(self.token(self.number(x)), x)


class Positions(nn.Module):
    """x + P, P a learnt vector for every token."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.number = Enumerate(tokens)
        self.table = table(tokens, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Tokens that know where they are."""
        return x + self.table(self.number(x))


class FirstToken(nn.Module):
    """What the head of a network with a class token reads."""

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch dim"]:
        """The first token."""
        return x[:, 0]


class Residual(nn.Module):
    """x + body(x): what a hook on this module sees is the network after the sum.

    grid    height and width of the tokens' map; () where x is a map itself.
    prefix  tokens in front that are no pixels.
    """

    def __init__(self, body: nn.Module, *, grid: tuple[int, ...] = (), prefix: int = 0) -> None:
        super().__init__()
        self.body = body
        self.grid = grid
        self.prefix = prefix

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The sum."""
        return x + self.body(x)


def branch(dim: int, inner: nn.Module, *, eps: float, maps: bool, drop_path: float) -> nn.Sequential:
    """LayerNorm and `inner`, which works on the last axis; around them the axes of maps turned, where x is one."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if maps:
        layers["last"] = ChannelsLast()
    layers |= {"norm": nn.LayerNorm(dim, eps=eps), "inner": inner}
    if maps:
        layers["first"] = ChannelsFirst()
    if drop_path:
        layers["drop"] = DropPath(drop_path)
    return nn.Sequential(layers)


def mlp(dim: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, linear: the same at every token."""
    return nn.Sequential(OrderedDict(up=nn.Linear(dim, hidden), act=nn.GELU(), down=nn.Linear(hidden, dim)))


def transformer_block(
    dim: int,
    attention: nn.Module,
    *,
    hidden: int,
    eps: float,
    drop_path: float,
    grid: tuple[int, ...] = (),
    prefix: int = 0,
) -> nn.Sequential:
    """x + attention(norm(x)), then x + mlp(norm(x)): `msa` and `mlp`, each a `Residual`. Maps where grid is ()."""
    options = {"eps": eps, "maps": not grid, "drop_path": drop_path}
    around = {"grid": grid, "prefix": prefix}
    return nn.Sequential(
        OrderedDict(
            msa=Residual(branch(dim, attention, **options), **around),  # type: ignore[arg-type]
            mlp=Residual(branch(dim, mlp(dim, hidden), **options), **around),  # type: ignore[arg-type]
        )
    )


def ending(grid: tuple[int, int], *, prefix: int) -> OrderedDict[str, nn.Module]:
    """Stages from tokens to features: the first token where there is a class token, else the mean of their map."""
    if prefix:
        return OrderedDict(first=FirstToken())
    return OrderedDict(map=ToMap(grid), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
