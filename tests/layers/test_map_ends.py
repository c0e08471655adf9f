"""Which networks activate first, and what returns the last map."""

import pytest
import torch
from torch import Tensor, nn

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.backbones.wide_resnet import WideResNet
from levelhead.layers.map_ends import behind_last_map, pre_activation
from levelhead.likelihood import Signature
from levelhead.probe import trace
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)


@pytest.mark.parametrize(
    "backbone, first",
    [
        (ResNet(depth=8, width=4), False),
        (ResNet(depth=50, width=2), False),
        (ResNet(depth=8, width=4, preact=True), True),
        (ResNet(depth=8, width=4, preact=True, norm="group"), True),
        (WideResNet(depth=10, width=1), True),
        (VGG(width=2), False),
        (LeNet(), False),
    ],
    ids=repr,
)
def test_pre_activation_is_a_norm_that_reads_no_convolution(backbone, first: bool) -> None:
    network = backbone(IMAGES)
    assert pre_activation(network.trace()) is first
    assert pre_activation(MCDropout(p=0.1, where="layers")(network).trace()) is first
    assert pre_activation(BatchEnsemble(num_members=2)(network).trace()) is first


def test_without_norms_or_pixels_there_is_none() -> None:
    assert not pre_activation(MLP()(Signature(input_shape=(4,))).trace())
    assert not pre_activation(VGG(width=2, norm="none")(IMAGES).trace())


class Dense(nn.Module):
    """Maps are joined and normalised together, as in DenseNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.conv1(x), self.conv2(x)], 1)).relu().mean((2, 3))


def test_joined_maps_count_as_a_blocks_output() -> None:
    assert pre_activation(trace(Dense(), torch.rand(2, 3, 8, 8)))


def test_the_last_map_is_that_of_the_largest_module() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    seen = trace(nn.Sequential(inner, nn.Flatten(), nn.Linear(36, 2)), torch.rand(2, 3, 8, 8))
    (place,) = behind_last_map(seen)
    assert (place.name, place.behind, place.channels) == ("0", True, 4)
    assert behind_last_map(trace(inner, torch.rand(2, 3, 8, 8))) == ()  # it ends in a map
    act = nn.ReLU()
    twice = nn.Sequential(act, nn.Conv2d(3, 4, 3), act, nn.Flatten())
    assert behind_last_map(trace(twice, torch.rand(2, 3, 8, 8))) == ()  # behind it is also in front of the convolution
    assert behind_last_map(trace(nn.Linear(3, 2), torch.rand(2, 3))) == ()
