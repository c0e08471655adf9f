"""How PiT goes from many narrow tokens to few wide ones."""

from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.tokens import Prepend, ToMap, ToTokens


class First(nn.Module):
    """The first token, as a sequence of one."""

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch 1 dim"]:
        """The first token."""
        return x[:, :1]


class TokenPool(nn.Module):
    """The tokens' map through a depthwise 3 x 3 convolution of stride 2; the class token through a linear layer.

    dim, out  features before and after, `out` a multiple of `dim`.
    pooled    the grid of the pooled tokens: half as many rows and columns, rounded up.
    """

    def __init__(self, dim: int, out: int, *, grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        if out % dim or prefix not in (0, 1):
            raise ValueError(f"TokenPool: out wants a multiple of {dim}, got {out}; prefix 0 or 1, got {prefix}")
        self.pooled = (grid[0] + 1) // 2, (grid[1] + 1) // 2
        self.map = ToMap(grid, prefix=prefix)
        self.conv = nn.Conv2d(dim, out, 3, stride=2, padding=1, groups=dim)
        self.tokens = ToTokens()
        if prefix:
            self.first = First()
            self.linear = nn.Linear(dim, out)
            self.prepend = Prepend()
        self.prefix = prefix

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch fewer out"]:
        """A quarter of the tokens."""
        pooled = self.tokens(self.conv(self.map(x)))
        return self.prepend(self.linear(self.first(x)), pooled) if self.prefix else pooled
