"""Blocks as papers count them: of our networks, of flat ones, and of ones with parts of parts."""

from collections import OrderedDict

import torch
from torch import nn

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.blocks_in_order import block_of_each_call
from levelhead.likelihood import Signature
from levelhead.probe import trace
from levelhead.surgeries.batch_ensemble import BatchEnsemble

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)


def blocks(module: nn.Module) -> dict[str, int]:
    """The block of each part called first with its name."""
    found = trace(module, torch.rand(2, 3, 32, 32))
    return dict(zip((call.name for call in found.calls), block_of_each_call(found), strict=True))


def top(network) -> dict[str, int]:
    """The blocks of a network's stages."""
    found = network.trace()
    named = zip((call.name for call in found.calls), block_of_each_call(found), strict=True)
    return {name.removeprefix("features."): block for name, block in named if name.count(".") == 1}


def test_stem_and_stages_of_residual_networks() -> None:
    after = {"pool": 3, "flatten": 3}
    expected = {"normalise": 0, "stem": 0, "stage1": 1, "stage2": 2, "stage3": 3, **after}
    assert top(ResNet(depth=8)(IMAGES)) == expected
    assert top(ResNet(depth=8, preact=True)(IMAGES)) == expected | {"final": 3}
    assert top(BatchEnsemble(num_members=2)(ResNet(depth=8, width=2)(IMAGES))) == expected
    assert top(ResNet(depth=50, width=2, stem="imagenet")(IMAGES))["stage4"] == 4


def test_stages_of_plain_networks() -> None:
    found = top(VGG(width=2)(IMAGES))
    assert [found[f"stage{i}"] for i in range(1, 6)] == [0, 1, 2, 3, 4]
    lenet = top(LeNet()(IMAGES))
    assert lenet["stage1"] == 0
    assert lenet["stage2"] == lenet["hidden1"] == 1


def conv(channels: int = 4, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 4, 3, padding=1, **options)


def test_single_layers_are_parted_by_pools() -> None:
    layers = [conv(3), nn.ReLU(), nn.MaxPool2d(2), conv(), nn.ReLU(), conv(), nn.ReLU(), nn.MaxPool2d(2), conv()]
    found = blocks(nn.Sequential(nn.Sequential(*layers), nn.Flatten()))
    assert [found[f"0.{i}"] for i in range(9)] == [0, 0, 0, 1, 1, 1, 1, 1, 2]
    assert found["1"] == 2


def test_a_stem_of_single_layers_is_one_block_and_parts_are_others() -> None:
    parts = OrderedDict(conv=conv(3), norm=nn.BatchNorm2d(4), act=nn.ReLU(), pool=nn.MaxPool2d(2))
    parts |= {"layer1": nn.Sequential(conv(), nn.ReLU(), conv()), "layer2": nn.Sequential(conv(stride=2), conv())}
    parts["last"] = nn.ReLU()
    found = blocks(nn.Sequential(parts))
    assert [found[name] for name in parts] == [0, 0, 0, 0, 1, 2, 2]


def test_parts_of_many_sizes_are_taken_apart() -> None:
    stages = nn.Sequential(*(nn.Sequential(conv(stride=2), conv()) for _ in range(3)))
    found = blocks(nn.Sequential(OrderedDict(stem=nn.Sequential(conv(3), nn.ReLU()), stages=stages)))
    assert [found[name] for name in ("stem", "stages.0", "stages.1", "stages.2")] == [0, 1, 2, 3]


def test_a_network_without_convolutions_is_one_block() -> None:
    assert set(blocks(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.ReLU())).values()) == {0}
