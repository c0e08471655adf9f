"""A fixed filter for every channel of a map, exchanged as training goes on; nothing of it is learned."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Paced
from levelhead.layers.frequency_filters import identity_kernels
from levelhead.types import CannotCompose

PADDINGS = ("zero", "replicate")


class PacedFilter(Paced):
    """y_c = k_c * x_c for each channel c of a map, size kept; the identity until `become` says otherwise.

    size     pixels of a kernel a side, odd.
    padding  "zero" darkens borders, "replicate" does not.
    stored   the kernels are part of the state dict, for predictors that use them; else it has the plain network's keys.
    """

    kernel: Float[Tensor, "channel 1 tap tap"]

    def __init__(self, channels: int, size: int = 3, *, padding: str = "zero", stored: bool = False) -> None:
        super().__init__()
        if size % 2 == 0:
            raise ValueError(f"{type(self).__name__}: size wants an odd number of pixels, got {size}")
        if padding not in PADDINGS:
            raise ValueError(
                f"{type(self).__name__}: padding must be one of {', '.join(map(repr, PADDINGS))}; got {padding!r}"
            )
        self.channels, self.size, self.padding, self.stored = channels, size, padding, stored
        self.register_buffer("kernel", identity_kernels(channels, size).float(), persistent=stored)
        self.idle = True  # known to be the identity, without asking the device: training does not convolve
        self.known: object = None  # of what the present kernels are a function
        self.register_load_state_dict_post_hook(_forget)

    def become(self, kernels: Float[Tensor, "channel 1 tap tap"], known: object, *, idle: bool = False) -> None:
        """Take other kernels, made of `known`; written into the buffer that there is, as compiled networks want it.

        idle  they are the identity, and so are those of all other layers at this time: were it a matter of chance,
              compiled networks would be compiled again for every pattern of layers.
        """
        self.idle = idle
        self.kernel.copy_(kernels.to(self.kernel.dtype), non_blocking=True)
        self.known = known

    def forward(self, x: Float[Tensor, "rows channel h w"]) -> Float[Tensor, "rows channel h w"]:
        """The map, filtered."""
        if not self.training:
            return self.predicted(x)
        return x if self.idle else self.filtered(x, self.kernel)

    def predicted(self, x: Float[Tensor, "rows channel h w"]) -> Float[Tensor, "rows channel h w"]:
        """The map at prediction."""
        raise TypeError(f"{type(self).__name__} must define predicted")

    def filtered(
        self, x: Float[Tensor, "rows channel h w"], kernel: Float[Tensor, "filter 1 tap tap"]
    ) -> Float[Tensor, "rows channel h w"]:
        """The map through other kernels. Raises CannotCompose where the network has other channels than it had."""
        if x.shape[1] != self.channels:
            raise CannotCompose(
                f"{type(self).__name__} was made for {self.channels} channels and gets {x.shape[1]}: a later surgery "
                "changed the layer in front of it. Put that surgery before the one that filters"
            )
        kernel = kernel.to(x.dtype)
        margin = self.size // 2
        if self.padding == "replicate":
            return F.conv2d(F.pad(x, (margin,) * 4, mode="replicate"), kernel, groups=self.channels)
        return F.conv2d(x, kernel, padding=margin, groups=self.channels)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"channels={self.channels}, size={self.size}, padding={self.padding!r}, stored={self.stored}"


def _forget(layer: nn.Module, keys: object) -> None:
    """Kernels that were loaded are a function of nothing known, and perhaps not the identity."""
    layer.idle, layer.known = layer.idle and not layer.stored, None  # type: ignore[assignment]
