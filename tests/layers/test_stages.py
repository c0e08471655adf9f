"""Stages of networks, found by running an example: how many blocks each has, and which can be replaced."""

import pytest
import torch
from torch import Tensor, nn

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.backbones.vit import ViT
from levelhead.backbones.wide_resnet import WideResNet
from levelhead.layers.stages import room, stages, tail
from levelhead.likelihood import Signature
from levelhead.network import Network

IMAGES = Signature((3, 32, 32), 10)


@pytest.mark.parametrize(
    "backbone, sizes, rooms",
    [
        (ResNet(depth=8), [1, 1, 1], [1, 0, 0]),
        (ResNet(depth=20, width=4), [3, 3, 3], [1, 1, 1]),
        (ResNet(depth=50, width=4), [3, 4, 6, 3], [1, 2, 3, 1]),
        (WideResNet(depth=16, width=1), [2, 2, 2], [1, 1, 1]),
        (VGG(depth=16, width=8), [1, 2, 3, 3, 3], [1, 1, 1, 1, 1]),  # a first convolution reads the image
        (LeNet(), [1], [0]),
        (MLP(hidden=(4,)), [], []),
        (ViT(patch=8, depth=1, heads=1, dim_head=4), [], []),
    ],
    ids=repr,
)
def test_stages_and_their_room(backbone, sizes: list[int], rooms: list[int]) -> None:
    found = stages(backbone(IMAGES).trace())
    assert [len(units) for units in found] == sizes
    assert [room(units) for units in found] == rooms


def test_units_know_their_maps() -> None:
    found = stages(ResNet(depth=50, width=4)(IMAGES).trace())
    last = found[-1][-1]
    assert (last.channels, last.out, last.width, last.size, last.keeps) == (128, 128, 32, (4, 4), True)
    assert last.name == "features.stage4.2"
    first = found[1][0]
    assert (first.channels, first.out, first.width, first.keeps) == (16, 32, 8, False)


def test_tails_alternate_from_the_end() -> None:
    units = stages(ResNet(depth=50, width=2)(IMAGES).trace())[2]
    assert [unit.name[-1] for unit in tail(units, 3)] == ["5", "3", "1"]
    assert tail(units, 0) == ()


class Twice(nn.Module):
    """One residual block, run two times, between a stem and a second block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        block = ResNet(depth=8, width=4)(IMAGES).features.stage1[0]
        self.shared, self.other = block, ResNet(depth=8, width=4)(IMAGES).features.stage1[0]
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.other(self.shared(self.shared(self.stem(x)))).mean((2, 3)))


def test_a_block_that_runs_twice_is_one_unit() -> None:
    network = Network.wrap(Twice(), head="fc", signature=IMAGES)
    assert [[unit.name for unit in stage] for stage in stages(network.trace())] == [
        ["features.shared", "features.other"]
    ]
    assert torch.isfinite(network(IMAGES.example(2))).all()
