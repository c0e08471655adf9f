"""Which convolutions of a main path are found, which are shortcuts, and which share a group."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.backbones.wide_resnet import WideResNet
from levelhead.layers.behind_convolutions import ONE_PIXEL, Sites, behind_convolutions
from levelhead.likelihood import Signature
from levelhead.probe import trace
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)


def of(backbone: object, **options: object) -> Sites:
    return behind_convolutions(backbone(IMAGES).trace(), **options)  # type: ignore[operator]


def names(found: Sites) -> list[str]:
    return [site.name.removeprefix("features.") for site in found.found]


def groups(found: Sites) -> list[list[str]]:
    """The last words of names, those of one group together."""
    by_group: dict[str, list[str]] = {}
    for site in found.found:
        by_group.setdefault(site.group, []).append(site.name.rpartition(".")[2])
    return list(by_group.values())


BASIC = ["stem.conv", *(f"stage{i}.0.body.conv{j}" for i in (1, 2, 3) for j in (1, 2))]


@pytest.mark.parametrize("preact", [False, True])
def test_a_small_resnet_without_its_shortcuts(preact: bool) -> None:
    found = of(ResNet(depth=8, preact=preact))
    assert names(found) == BASIC
    assert [site.channels for site in found.found] == [16, 16, 16, 32, 32, 64, 64]
    assert groups(found) == [["conv"], *[["conv1", "conv2"]] * 3]
    every = of(ResNet(depth=8, preact=preact), shortcuts=True)
    assert set(names(every)) - set(BASIC) == {"stage2.0.shortcut.conv", "stage3.0.shortcut.conv"}


def test_bottlenecks_share_between_the_first_two_and_keep_the_expansion_apart() -> None:
    found = of(ResNet(depth=50, width=4))
    assert len(found.found) == 1 + 16 * 3
    assert not any("shortcut" in name for name in names(found))
    assert groups(found) == [["conv"], *[["conv1", "conv2"], ["conv3"]] * 16]


def test_networks_without_blocks_share_nothing() -> None:
    assert names(of(LeNet())) == ["stage1.conv", "stage2.conv"]
    assert groups(of(VGG(depth=13, width=2))) == [["conv1"], ["conv2"]] * 4 + [["conv1"], ["conv2"]]
    assert all(len(group) < 3 for group in groups(of(WideResNet(depth=10, width=1))))


def test_the_second_of_each_size_and_those_of_the_first_stage() -> None:
    assert names(of(VGG(depth=13, width=2), where="stages")) == [f"stage{i}.conv2" for i in range(1, 6)]
    assert names(of(WideResNet(depth=10, width=1), where="early")) == BASIC[:3]
    stem = ResNet(depth=18, stem="imagenet", width=2)
    assert names(of(stem, where="early"))[::2] == ["stem.conv", "stage1.0.body.conv2", "stage1.1.body.conv2"]


@pytest.mark.parametrize("surgery", [BatchEnsemble(num_members=2), HyperBatch(num_members=2)], ids=repr)
def test_a_layer_of_members_is_taken_whole(surgery: Any) -> None:
    network = surgery(ResNet(depth=8)(IMAGES))
    assert names(behind_convolutions(network.trace())) == BASIC  # and not BASIC[0] + ".module"


class Block(nn.Module):
    """Branches put together by `join`; pooled: the shortcut pools before it convolves, as ResNet-D's."""

    def __init__(self, channels: int, out: int, join: str, *, pooled: bool = False) -> None:
        super().__init__()
        stride = 2 if pooled else 1
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(out, out, 1)
        pool = [nn.AvgPool2d(2)] if pooled else []
        self.side = nn.Sequential(*pool, nn.Conv2d(channels, out, 1))
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv2(self.conv1(x).relu())
        if self.join == "none":
            return main
        side = self.side(x)
        return main + side if self.join == "add" else torch.cat([main, side], 1)


@pytest.mark.parametrize(
    "join, pooled, expected",
    [
        ("add", False, ["0", "1.conv1", "1.conv2"]),
        ("add", True, ["0", "1.conv1", "1.conv2"]),
        ("cat", False, ["0", "1.conv1", "1.conv2", "1.side.0"]),  # a branch, and no shortcut
        ("none", False, ["0", "1.conv1", "1.conv2"]),
    ],
)
def test_what_is_added_is_a_shortcut_and_what_is_concatenated_is_not(join: str, pooled: bool, expected: list) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(8, 12, join, pooled=pooled))
    assert names(behind_convolutions(trace(module, torch.rand(2, 3, 8, 8)))) == expected


def test_a_pointwise_convolution_that_begins_the_main_path_is_no_shortcut() -> None:
    class Inverted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expand, self.depthwise = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.project = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.project(self.depthwise(self.expand(x)))

    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Inverted())
    found = behind_convolutions(trace(module, torch.rand(2, 3, 8, 8)))
    assert names(found) == ["0", "1.expand", "1.depthwise", "1.project"]


def test_what_has_no_map_is_left_with_the_reason() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 6), nn.Flatten(2), nn.Conv1d(4, 4, 1))
    found = behind_convolutions(trace(module, torch.rand(2, 3, 8, 8)))
    assert names(found) == ["0"]
    assert found.left[0] == ("1", ONE_PIXEL)
    assert found.left[1][0] == "3"
    assert "1d" in found.left[1][1]
