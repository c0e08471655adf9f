"""A strided layer that reads a low-passed map, or low-passes what it would have returned without its stride."""

from typing import Any

from torch import Tensor, nn

from levelhead.layers.downsampling import LowPass, make_dense
from levelhead.layers.kaiser_filter import KaiserFilter

ORDERS = ("filter_first", "conv_first")


class AAConv2d(LowPass):
    """Down_S(g * h * x) in place of Down_S(g * x), g the layer's own kernel, h low-pass at fc = 1 / (2 S).

    conv    the strided layer: a convolution, or a layer with members' vectors around one.
    stride  S of rows and columns. 1 leaves the layer what it is, to the bit.
    order   "filter_first"  conv(h * x): the authors' code. The layer keeps its stride.
            "conv_first"    Down_S(h * conv_1(x)), conv_1 the same kernel at stride 1: S^2 times the work, and equal up
                            to the borders, since both are convolutions. The layer loses its stride.
    taps, padding  of h; see `KaiserFilter`.

    Reads like the layer: what is not here is the layer's. Raises ValueError for an order that there is not.
    arXiv 2212.11760.
    """

    def __init__(
        self,
        conv: nn.Module,
        *,
        stride: tuple[int, int],
        order: str = "filter_first",
        taps: int | None = None,
        padding: str = "zero",
    ) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"AAConv2d: order must be one of {', '.join(map(repr, ORDERS))}; got {order!r}")
        self.order, self.stride = order, stride
        self.module = make_dense(conv) if order == "conv_first" else conv
        step = stride if order == "conv_first" else (1, 1)
        self.low_pass = KaiserFilter((0.5 / stride[0], 0.5 / stride[1]), taps=taps, padding=padding, stride=step)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Other arguments go to the layer."""
        out: Tensor
        if self.order == "conv_first":
            out = self.low_pass(self.module(x, *args, **kwargs))
        else:
            out = self.module(self.low_pass(x), *args, **kwargs)
        return out

    def __getattr__(self, name: str) -> Any:
        """What is not here is looked for in the layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def extra_repr(self) -> str:
        """The order of both."""
        return repr(self.order)
