"""Behind convolutions and their activations, in networks written in all the usual ways."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.layers.behind_activations import behind_activations, behind_each_convolution
from levelhead.probe import trace

IMAGE = torch.rand(2, 3, 16, 16)


def names(module: nn.Module) -> tuple[list[str], list[str], list[str]]:
    seen = trace(module, IMAGE)
    behind = behind_activations(seen)
    assert all(place.behind and place.channel_axis == 1 for place in behind.found)
    return (
        [p.name for p in behind.found],
        [name for name, _ in behind.left],
        [p.name for p in behind_each_convolution(seen)],
    )


def test_behind_the_activation_with_a_norm_or_without() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(144, 8), nn.ReLU(),
    )  # fmt: skip
    assert names(module) == (["2", "4"], [], ["0", "3"])
    assert [place.channels for place in behind_activations(trace(module, IMAGE)).found] == [4, 4]


class Block(nn.Module):
    """One activation module for several maps, as torchvision's blocks have it; the last one activates the sum."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.norm2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.norm2(self.conv2(self.act(self.norm1(self.conv1(x))))))


def test_of_a_shared_relu_in_front_which_is_the_same() -> None:
    block = Block(nn.ReLU())
    assert names(block) == (["norm1"], ["conv2"], ["conv1", "conv2"])
    z = torch.randn(2, 3, 16, 16)
    torch.manual_seed(0)
    one = F.dropout(z, 0.3).relu()
    torch.manual_seed(0)
    assert torch.equal(one, F.dropout(z.relu(), 0.3))


def test_what_cannot_be_placed_is_named() -> None:
    seen = trace(Block(nn.SiLU()), IMAGE)
    found, left = behind_activations(seen)
    assert not found
    assert [name for name, _ in left] == ["conv1", "conv2"]
    assert "act activates it and other maps too" in left[0][1]
    assert "no module" in left[1][1]


def test_activations_in_code_are_not_seen() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x))

    assert names(Functional()) == ([], ["conv"], ["conv"])
