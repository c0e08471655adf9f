"""The second network of NOMU: it reads the inputs and the main network's last hidden features."""

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.normalise import Normalise
from levelhead.likelihood import Signature


def side_layers(signature: Signature, hidden: tuple[int, ...]) -> nn.Sequential:
    """normalise -> flatten -> [Linear -> ReLU] a hidden layer: inputs to the side network's own features."""
    widths = (math.prod(signature.input_shape), *hidden)
    stages: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(signature.mean, signature.std))
    stages["flatten"] = nn.Flatten()
    for place, (before, after) in enumerate(pairwise(widths), start=1):
        stages[f"hidden{place}"] = nn.Sequential(OrderedDict(linear=nn.Linear(before, after), act=nn.ReLU()))
    return nn.Sequential(stages)


class SideBySide(nn.Module):
    """The features of both networks, the main ones first."""

    def __init__(self, main: nn.Module, side: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.side = side

    def forward(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch feature"]:
        """h_f and h_r, one after the other."""
        return torch.cat([self.main(x), self.side(x)], dim=-1)


class SideHead(nn.Module):
    """(main(h_f), r),  r = W [h_f, h_r] + b: what the main head says, then a raw uncertainty a target.

    main_width  how many of the features are h_f.
    detach      keep the gradient of r out of h_f, and so out of the main network.
    """

    def __init__(self, main: nn.Module, raw: nn.Module, *, main_width: int, detach: bool) -> None:
        super().__init__()
        self.main = main
        self.raw = raw
        self.main_width = main_width
        self.detach = detach

    def forward(self, z: Float[Tensor, "rows feature"]) -> Float[Tensor, "rows output"]:
        """Outputs of the main head and raw uncertainties."""
        hidden = z[..., : self.main_width].contiguous()  # so that the main head computes what it computed alone
        read = torch.cat([hidden.detach(), z[..., self.main_width :]], dim=-1) if self.detach else z
        return torch.cat([self.main(hidden), self.raw(read)], dim=-1)

    def extra_repr(self) -> str:
        """What is not seen from the layers."""
        return f"main_width={self.main_width}, detach={self.detach}"
