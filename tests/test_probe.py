"""What one run tells: places, strides, global pools, who reads which tensor, who drops by function."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.probe import Call, Trace, trace

X = torch.rand(2, 3, 8, 8)


def first(module: nn.Module, x: Tensor = X) -> Call:
    return trace(module, x).calls[0]


class Slicing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


class ChannelsDown(nn.Module):
    """(batch, h, w, c) to half the channels, as in networks that keep channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]


@pytest.mark.parametrize(
    "module, subsamples",
    [
        (nn.Conv2d(3, 4, 3, stride=2), True),
        (nn.Conv2d(3, 4, 3, stride=(1, 2), padding=1), True),
        (nn.Conv2d(3, 4, 5), False),  # 8 -> 4 pixels, but none is stepped over
        (nn.Conv2d(3, 4, 3, padding=1), False),
        (nn.ConvTranspose2d(3, 4, 2, stride=2), False),
        (nn.MaxPool2d(2), True),
        (nn.AvgPool2d(3, stride=1, padding=1), False),
        (nn.AdaptiveAvgPool2d(4), True),
        (nn.AdaptiveAvgPool2d(8), False),
        (Slicing(), True),
        (ChannelsDown(), False),
        (nn.Linear(8, 2), False),
        (nn.Flatten(), False),
    ],
    ids=str,
)
def test_a_step_over_pixels_is_told_from_a_smaller_map(module: nn.Module, subsamples: bool) -> None:
    assert first(module).subsamples is subsamples


@pytest.mark.parametrize(
    "module, collapses",
    [
        (nn.AdaptiveAvgPool2d(1), True),
        (nn.AvgPool2d(8), True),
        (nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), True),
        (nn.AdaptiveAvgPool2d(2), False),
        (nn.Flatten(), False),
        (nn.Conv2d(3, 4, 8), False),  # mixes channels
    ],
    ids=str,
)
def test_a_global_pool_leaves_one_number_a_channel(module: nn.Module, collapses: bool) -> None:
    assert first(module).collapses is collapses


def test_nothing_collapses_where_there_is_one_pixel_or_none() -> None:
    assert not first(nn.AdaptiveAvgPool2d(1), torch.rand(2, 3, 1, 1)).collapses
    assert not first(nn.Identity(), torch.rand(2, 3)).collapses


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1))
        self.shortcut = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.body(x), 0.4, self.training) + self.shortcut(x)


def test_calls_know_what_is_around_them_and_which_tensor_they_read() -> None:
    seen = trace(nn.Sequential(Residual(), nn.Dropout(0.1)), X)
    names = [call.name for call in seen.calls]
    assert names == ["", "0", "0.body", "0.body.0", "0.body.1", "0.shortcut", "1"]
    around = dict(zip(names, seen.around(), strict=True))
    assert [names[i] for i in around["0.body.1"]] == ["", "0", "0.body"]
    assert [names[i] for i in around["1"]] == [""]
    source = {call.name: call.source for call in seen.calls}
    assert source["0"] == source["0.body.0"] == source["0.shortcut"]
    assert source["0.body.1"] != source["0"]
    result = {call.name: call.result for call in seen.calls}
    assert result["0.body.0"] == source["0.body.1"]
    assert result["0.body"] == result["0.body.1"] != result["0"] == source["1"]
    assert seen.functional_dropout == (0.4,)
    assert seen.droppers == ("0",)


def test_nothing_around_an_empty_trace() -> None:
    assert Trace((), ()).around() == ()
