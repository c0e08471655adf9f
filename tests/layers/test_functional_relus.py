"""Which modules call ReLU as a function, on maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.layers.functional_relus import functional_relus


class Calls(nn.Module):
    """Calls ReLU in one of the ways that there are."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.how == "F.relu":
            return F.relu(x)
        if self.how == "in place":
            return F.relu(x, inplace=True)
        if self.how == "torch.relu":
            return torch.relu(x)
        if self.how == "method":
            return x.relu()
        return F.relu(x.flatten(1)).reshape(x.shape) if self.how == "vectors" else x


def test_every_way_is_seen_and_modules_are_not() -> None:
    ways = ("F.relu", "in place", "torch.relu", "method", "vectors", "not at all")
    network = nn.Sequential(*map(Calls, ways), nn.ReLU(), nn.ReLU(inplace=True))
    found = functional_relus(network, lambda: network(torch.rand(1, 2, 4, 4)))
    assert found == tuple(network[:4])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
