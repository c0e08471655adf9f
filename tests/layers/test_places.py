"""Places before steps over pixels and before the global pool, in networks written in all the usual ways."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.declared import Membered
from levelhead.layers.places import Places, before_global_pool, before_subsampling
from levelhead.probe import trace

IMAGE = torch.rand(2, 3, 16, 16)


def places(module: nn.Module, image: Tensor = IMAGE) -> tuple[list[str], list[str]]:
    seen = trace(module, image)
    return written(before_subsampling(seen)), written(before_global_pool(seen))


def written(found: Places) -> list[str]:
    return [f"{place.name}{'>' if place.behind else ''}:{place.channels}" for place in found.found]


def conv(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1)


class Basic(nn.Module):
    """A residual block whose shortcut is a convolution, or (option A of the paper) a slice."""

    def __init__(self, channels: int, out: int, stride: int, *, sliced: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, out, stride), conv(out, out)
        self.downsample = None if sliced or stride == 1 else nn.Conv2d(channels, out, 1, stride)
        self.sliced = sliced

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x).relu())
        if self.sliced:
            return (out + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))).relu()
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


class Bottleneck(nn.Module):
    """The stride is in the second convolution, which does not read the block's input."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(8, 4, 1), conv(4, 4, 2), nn.Conv2d(4, 16, 1))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(8, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x) + self.shortcut(x)


class PreActivation(nn.Module):
    """Both branches read the activated map, not the block's input."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.body, self.shortcut = nn.ReLU(), conv(8, 16, 2), nn.Conv2d(8, 16, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.act(x)
        return self.body(z) + self.shortcut(z)


def staged(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(conv(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_both_branches_of_a_block_see_one_place() -> None:
    assert places(staged(Basic(8, 16, 2))) == (["1:8"], ["2:16"])
    assert places(staged(Basic(8, 16, 2, sliced=True))) == (["1:8"], ["2:16"])
    assert places(staged(Bottleneck())) == (["1:8"], ["2:16"])
    assert places(staged(PreActivation())) == (["1:8"], ["2:16"])


def test_a_block_within_modules_is_the_smallest_that_holds_both_branches() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Basic(8, 16, 2), Basic(16, 16, 1), Basic(16, 32, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x)

    assert places(staged(Stage())) == (["1.blocks.0:8", "1.blocks.2:16"], ["2:32"])


def test_lone_steps_get_it_right_before() -> None:
    vgg = staged(nn.ReLU(), nn.MaxPool2d(2), conv(8, 16), nn.ReLU(), nn.MaxPool2d(2))
    assert places(vgg) == (["2:8", "5:16"], ["6:16"])
    expanded = nn.Sequential(nn.Conv2d(8, 24, 1), nn.ReLU6(), conv(24, 24, 2), nn.Conv2d(24, 8, 1))
    assert places(staged(expanded)) == (["1.2:24"], ["2:8"])


def test_the_stem_is_left_alone() -> None:
    imagenet = nn.Sequential(nn.Conv2d(3, 8, 7, 2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    assert places(nn.Sequential(imagenet, Basic(8, 16, 2), nn.AdaptiveAvgPool2d(1)), torch.rand(2, 3, 64, 64)) == (
        ["1:8"],
        ["2:16"],
    )
    assert places(nn.Sequential(nn.AvgPool2d(2), conv(3, 4), nn.Flatten())) == ([], [])  # reads the image


def test_pools_inside_blocks_are_not_global() -> None:
    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gate(self.pool(x)).sigmoid()

    assert places(staged(Excited(), conv(8, 8))) == ([], ["3:8"])


class Functional(nn.Module):
    """Pools, activations and the mean over pixels are functions."""

    def __init__(self, *, shared: bool = False, mean: bool = True) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(3, 8), conv(8, 16)
        self.norm = nn.BatchNorm2d(16)
        self.act = nn.ReLU() if shared else None
        self.mean = mean
        self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        act = F.relu if self.act is None else self.act
        x = F.max_pool2d(act(self.conv1(x)), 2)
        x = act(self.norm(self.conv2(x)))
        return self.head(x.mean((2, 3)) if self.mean else x.flatten(1))


def test_functional_steps_and_pools_are_met_behind_the_module_before() -> None:
    assert places(Functional()) == (["conv1>:8"], ["norm>:16"])
    assert places(Functional(mean=False)) == (["conv1>:8"], [])


def test_a_module_of_several_calls_is_no_place_to_stand_behind() -> None:
    seen = trace(Functional(shared=True), IMAGE)
    found, left = before_subsampling(seen)
    assert not found
    assert left == (("act", left[0][1]),)
    assert "act is called 2 times" in left[0][1]
    assert before_global_pool(seen).left[0][0] == "act"


def test_behind_the_largest_module_that_ends_there() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(conv(3, 8), nn.Sequential(nn.BatchNorm2d(8)))

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x).relu().mean((2, 3))

    assert places(Dense()) == ([], ["features>:8"])


def test_no_pixels_no_places() -> None:
    assert places(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(2, 4)) == ([], [])
    assert places(nn.Sequential(nn.Flatten(), nn.Linear(768, 3))) == ([], [])


def test_networks_that_end_in_a_map_have_no_global_pool() -> None:
    assert places(nn.Sequential(conv(3, 8), conv(8, 8, 2))) == (["1:8"], [])


def test_a_layer_of_members_is_taken_whole() -> None:
    class Own(Membered):
        def __init__(self) -> None:
            super().__init__()
            self.num_members, self.module = 2, conv(8, 16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    assert places(staged(Own(), nn.MaxPool2d(2))) == (["1:8", "2:16"], ["3:16"])
