"""The block that stands in place of a residual block of convolutions: self-attention without an MLP."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.drop_path import DropPath
from levelhead.layers.local_attention import LocalAttention2d
from levelhead.layers.norms import norm as norm_of

VARIANTS = ("B", "A")


class MSABlock(nn.Module):
    """A residual branch of local self-attention (MSA), in two orders.

    B, pre-activation: z = GELU(norm(x)); body(z) + x, body = 1x1 conv to `width`, norm, attention to `out`. Where
       channels change or the map is strided, the shortcut is a 1x1 convolution of z.
    A, post-activation, for comparison: body(x) + x, body = 1x1 conv to `width`, norm, GELU, attention, norm. Where
       channels change or the map is strided, the shortcut is a 1x1 convolution and a norm.

    There is no MLP. `norm` is "batch", "group" or "none". The authors' block A strides its body alone, so that with a
    stride its sum fails; here the shortcut strides too. Park & Kim, arXiv 2202.06709.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        *,
        width: int,
        heads: int,
        dim_head: int = 64,
        window: int = 7,
        stride: int = 1,
        per_head_bias: bool = False,
        norm: str = "batch",
        variant: str = "B",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"MSABlock: variant must be one of {', '.join(map(repr, VARIANTS))}; got {variant!r}")
        self.variant = variant
        before = variant == "B"
        attention = LocalAttention2d(
            width, out, heads=heads, dim_head=dim_head, window=window, per_head_bias=per_head_bias
        )
        self.entry = (
            nn.Sequential(OrderedDict(norm=norm_of(norm, channels), act=nn.GELU())) if before else nn.Identity()
        )
        body: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels, width, 1, stride=stride, bias=False), norm=norm_of(norm, width)
        )
        if not before:
            body["act"] = nn.GELU()
        body["attention"] = attention
        if not before:
            body["norm2"] = norm_of(norm, out)
        if drop_path:
            body["drop"] = DropPath(drop_path)
        self.body = nn.Sequential(body)
        self.projects = stride > 1 or channels != out
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if self.projects:
            shortcut["conv"] = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            if not before:
                shortcut["norm"] = norm_of(norm, out)
        self.shortcut = nn.Sequential(shortcut) if shortcut else nn.Identity()

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch out g v"]:
        """The sum."""
        z = self.entry(x)
        return self.body(z) + self.shortcut(z if self.projects else x)

    @property
    def attention(self) -> LocalAttention2d:
        """The attention itself."""
        found = self.body.attention
        assert isinstance(found, LocalAttention2d)
        return found

    def rest(self) -> None:
        """Make the branch 0, so that the block starts as its shortcut: what a trained network around it survives."""
        last = self.attention.out if self.variant == "B" else self.body.norm2
        for parameter in last.parameters():  # type: ignore[union-attr]  # both are modules
            nn.init.zeros_(parameter)
