"""Steps over pixels in networks written in all the usual ways, and what a step says about itself."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.backbones.resnet import ResNet
from levelhead.layers.around import Around
from levelhead.layers.downsampling import LowPass, Step, Steps, exchanged, make_dense, steps_of, steps_over_pixels
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.probe import trace
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.mean_field import MeanField
from levelhead.surgeries.mimo import MIMO
from levelhead.surgeries.packed_ensemble import PackedEnsemble
from levelhead.surgeries.rank1_bnn import Rank1BNN
from levelhead.surgeries.self_tuning import SelfTuning
from levelhead.surgeries.spectral_norm import SpectralNorm

IMAGES = Signature((3, 32, 32), 10)


def steps(*layers: nn.Module, size: int = 16) -> Steps:
    return steps_over_pixels(trace(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers), torch.rand(2, 3, size, size)))


def only(layer: nn.Module, *, size: int = 16) -> Step:
    (step,) = steps(layer, size=size).found
    return step


CONVOLUTIONS = [
    (nn.Conv2d(4, 6, 3, 2, padding=1), (0, 0), (0, 0)),
    (nn.Conv2d(4, 6, 1, 2), (0, 0), (0, 0)),
    (nn.Conv2d(4, 6, 7, 2, padding=3, bias=False), (0, 0), (0, 0)),
    (nn.Conv2d(4, 4, 3, 2, padding=2, dilation=2, groups=4), (0, 0), (0, 0)),
    (nn.Conv2d(4, 6, 2, 2), (-1, -1), (0.5, 0.5)),
    (nn.Conv2d(4, 6, 3, 2), (-2, -2), (1, 1)),
    (nn.Conv2d(4, 6, 3, 2, padding="valid"), (-2, -2), (1, 1)),
    (nn.Conv2d(4, 6, (3, 1), (2, 1), padding=(1, 0)), (0, 0), (0, 0)),
]


@pytest.mark.parametrize("size", [15, 16, 17, 18])
@pytest.mark.parametrize("layer, margin, phase", CONVOLUTIONS, ids=repr)
def test_margin_phase_and_dense_size_of_convolutions(
    layer: nn.Conv2d, margin: tuple[int, int], phase: tuple[float, float], size: int
) -> None:
    step = only(layer, size=size)
    assert (step.kind, step.margin, step.phase) == ("convolution", margin, phase)
    x = torch.rand(2, 4, size, size)
    assert layer(x).shape[2:] == steps_of((size, size), step.margin, step.stride)
    stride, weight = layer.stride, layer.weight.clone()
    dense = make_dense(layer)(x)
    assert dense.shape[2:] == (size + step.dense[0], size + step.dense[1])
    assert torch.equal(layer.weight, weight)
    layer.stride = stride


@pytest.mark.parametrize("size", [15, 16, 17, 18])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 3, padding=1),
        nn.AvgPool2d(2),
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d((3, 2), (2, 1), padding=1),
    ],
    ids=repr,
)
def test_margin_and_dense_size_of_pools(pool: nn.Module, size: int) -> None:
    step = only(pool, size=size)
    x = torch.rand(2, 4, size, size)
    assert step.kind == ("max" if isinstance(pool, nn.MaxPool2d) else "average")
    assert pool(x).shape[2:] == steps_of((size, size), step.margin, step.stride)
    strided = (pool.stride, pool.ceil_mode)
    assert make_dense(pool)(x).shape[2:] == (size + step.dense[0], size + step.dense[1])
    pool.stride, pool.ceil_mode = strided


def test_a_last_window_that_only_sees_padding_is_dropped_as_torch_drops_it() -> None:
    pool = nn.MaxPool2d(2, 3, padding=1, ceil_mode=True)
    for size in range(6, 20):
        found = steps(pool, size=size)
        got = pool(torch.rand(1, 4, size, size)).shape[2:]
        for step in found.found:
            assert steps_of((size, size), step.margin, step.stride) == got
        assert found.found or found.left, size


def test_a_layer_that_pads_by_itself() -> None:
    class Same(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            height = max((-(-x.shape[2] // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - x.shape[2], 0)
            padded = F.pad(x, (height // 2, height - height // 2) * 2)
            return F.conv2d(padded, self.weight, self.bias, self.stride)

    step = only(Same(4, 6, 3, 2))
    assert (step.margin, step.dense) == ((0, 0), (0, 0))


def test_what_is_left_says_why() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2, ::2].contiguous()

    class Stubborn(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            if self.stride == (1, 1):
                raise RuntimeError("never at stride 1")
            return super().forward(x)

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.max_pool2d(self.first(x), 2))

    for layer, name, words in (
        (Odd(), "1", "a Odd steps over pixels in a way of its own"),
        (nn.LPPool2d(2, 2), "1", "a LPPool2d steps"),
        (
            Stubborn(4, 4, 3, 2, padding=1),
            "1",
            r"does not run at stride 1 \(never at stride 1\): put this surgery before",
        ),
        (Functional(), "1.first", "a function steps over pixels"),
    ):
        found = steps(layer)
        assert not found.found
        assert [left for left, _ in found.left] == [name]
        assert re.search(words, found.left[0][1]), found.left


def test_pools_of_all_pixels_are_no_steps_and_small_windows_always_are() -> None:
    assert steps(nn.AdaptiveAvgPool2d(1)) == Steps((), ())
    assert steps(nn.AvgPool2d(16)) == Steps((), ())
    assert steps(nn.AvgPool2d(16), size=32).found
    assert only(nn.MaxPool2d(2), size=2).kind == "max"


def test_a_shared_pool_is_one_step_and_filtering_layers_are_none() -> None:
    pool = nn.MaxPool2d(2)
    assert len(steps(pool, nn.Conv2d(4, 4, 3, padding=1), pool).found) == 1

    class Filtered(LowPass):
        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(x, 2)

    class Holding(LowPass):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, 2, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.avg_pool2d(x, 3, 1, 1))

    assert steps(Filtered()) == steps(Holding()) == Steps((), ())


def test_stems() -> None:
    network = ResNet(depth=18, stem="imagenet", width=4)(IMAGES)
    found = {step.name.removeprefix("features."): step for step in steps_over_pixels(network.trace()).found}
    assert [name for name, step in found.items() if step.reads_image] == ["stem.conv"]
    assert [name for name, step in found.items() if step.ends_stem] == ["stem.pool"]
    assert len(found) == 8
    assert found["stage2.0.body.conv1"].source == found["stage2.0.shortcut.conv"].source


def test_patch_embeddings() -> None:
    assert only(nn.Conv2d(4, 8, 4, 4)).is_patches
    assert not only(nn.Conv2d(4, 8, 2, 2)).is_patches
    assert not only(nn.Conv2d(4, 8, 3, 2, padding=1)).is_patches


@pytest.mark.parametrize(
    "surgery",
    [BatchEnsemble(), SelfTuning(), HyperBatch(), Rank1BNN(), MeanField(), MIMO(), PackedEnsemble()],
    ids=repr,
)
def test_layers_with_members_and_draws_are_found(surgery) -> None:
    made = surgery(ResNet(depth=8, width=4)(IMAGES))
    found = steps_over_pixels(made.trace())
    ends = ("stage2.0.body.conv1", "stage2.0.shortcut.conv", "stage3.0.body.conv1", "stage3.0.shortcut.conv")
    assert [step.name.removeprefix("features.") for step in found.found] == list(ends)
    assert not found.left


def test_a_bound_that_was_measured_on_the_strided_map_is_left_with_advice() -> None:
    found = steps_over_pixels(SpectralNorm()(ResNet(depth=8, width=4)(IMAGES)).trace())
    assert [name for name, _ in found.left] == ["features.stage2.0.body.conv1", "features.stage3.0.body.conv1"]
    assert all("put this surgery before the one that made it" in reason for _, reason in found.left)


def test_exchange_by_name() -> None:
    network = ResNet(depth=8, width=4)(IMAGES)

    def wrapped(module: nn.Module) -> nn.Module:
        return Around(make_dense(module))

    name = "features.stage2.0.body.conv1"
    made = exchanged(network, {"features.stage2.0": Around, name: Around, "features.pool": wrapped}, author="Test")
    assert made.notes[-1].converted == ("features.stage2.0", name, "features.pool")
    assert isinstance(made.get_submodule(name), Around)
    assert isinstance(made, Network)
