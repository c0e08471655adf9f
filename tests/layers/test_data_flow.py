"""Where a map's activation ends, and where one filter changes it for all who read it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.layers.data_flow import Flow, Spot, data_flow
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.surgeries.batch_ensemble import BatchEnsemble

SIGNATURE = Signature((3, 8, 8), 3)


def flow(body: nn.Module, *surgeries) -> Flow:
    network = Network(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(4, 3), SIGNATURE, width=4)
    for surgery in surgeries:
        network = surgery(network)
    return data_flow(network)


def spots(found: Flow, name: str) -> tuple[bool, list[str]]:
    value, activated = found.after_activation(name)
    where = found.seen_by(value, found.call_of(name))
    return activated, [f"{spot.name.removeprefix('features.0.')}{'>' if spot.behind else ''}" for spot in where]


class Block(nn.Module):
    """A convolution with what a subclass does behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act, self.next = conv(3), nn.BatchNorm2d(4), nn.ReLU(), conv(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.next(self.act(self.norm(self.conv(x))))


class InPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.next(F.relu(self.norm(self.conv(x)), inplace=True))


class Method(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.next(self.norm(self.conv(x)).relu_())


class Twice(Block):
    """One activation module in two places."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.next(self.act(self.norm(self.conv(x)))))


class Gated(Block):
    """The activated map is read by a gate and by a product."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.act(self.conv(x))
        return self.next(z * self.gate(z.mean((2, 3), keepdim=True)).sigmoid())


class GatedByFunction(Gated):
    def forward(self, x: Tensor) -> Tensor:
        z = F.silu(self.conv(x))
        return self.next(z * self.gate(z.mean((2, 3), keepdim=True)).sigmoid())


class Branching(Block):
    """Two modules read what a function made."""

    def __init__(self) -> None:
        super().__init__()
        self.other = conv(4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.conv(x)).relu()
        return self.next(z) + self.other(z)


class Summed(Block):
    """No activation before the sum."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + x[:, :1]


class Dropped(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.next(F.dropout(self.act(self.conv(x)), 0.5, self.training))


def conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 4, 3, padding=1)


@pytest.mark.parametrize(
    "block, activated, where",
    [
        (Block, True, ["act>"]),
        (InPlace, True, ["next"]),
        (Method, True, ["next"]),
        (Twice, True, ["next"]),
        (Gated, True, ["act>"]),
        (GatedByFunction, True, []),
        (Branching, True, ["next", "other"]),
        (Summed, False, ["norm>"]),
        (Dropped, True, ["act>"]),
    ],
)
def test_where_an_activation_ends(block: type[Block], activated: bool, where: list[str]) -> None:
    assert spots(flow(block()), "features.0.conv") == (activated, where)


def test_members_and_wrapped_norms_are_passed_through() -> None:
    assert spots(flow(Block(), BatchEnsemble(2)), "features.0.conv") == (True, ["act>"])


def test_one_spot_for_all_who_read_a_map() -> None:
    class Residual(nn.Module):
        def __init__(self, *, also: bool = False) -> None:
            super().__init__()
            self.body, self.shortcut, self.also = conv(3), conv(3), also

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + self.shortcut(x) + (x[:, :1] if self.also else 0)

    class Entered(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.act(x))

    names = {"features.0.body", "features.0.shortcut"}
    for block, spot in (
        (Residual(), Spot("features.0", behind=False)),
        (Entered(), Spot("features.0.act", behind=True)),
        (Residual(also=True), None),
    ):
        found = flow(block)
        read = found.passed[found.call_of("features.0.body")].reads
        assert found.one_spot(read, names) == spot
        assert found.one_spot(read, {"features.0.body"}) is None  # the shortcut reads it too


def test_it_leaves_the_network_alone() -> None:
    network = Network(nn.Sequential(Block(), nn.Flatten()), nn.Linear(256, 3), SIGNATURE, width=256).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    data_flow(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
