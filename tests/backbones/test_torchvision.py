"""Without torchvision; with it, tests/interop/test_backbones.py."""

import sys

import pytest
import torch
from torch import nn

from levelhead.backbones.torchvision import Torchvision, adapt_first_convolution
from levelhead.likelihood import Signature
from levelhead.types import MissingExtra


def test_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingExtra, match=r'torchvision.* .*pip install "levelhead\[vision\]"'):
        Torchvision()(Signature((3, 32, 32)))


def test_options_of_a_mapping_are_sorted_pairs():
    assert Torchvision(options={"b": 2, "a": 1}).options == (("a", 1), ("b", 2))


@pytest.mark.parametrize("channels, bias", [(1, False), (2, True)])
def test_a_grey_image_gives_what_it_gave_over_three_channels(channels, bias):
    conv = nn.Conv2d(3, 4, 5, stride=2, padding=1, bias=bias)
    model = nn.Sequential(nn.Identity(), nn.Sequential(conv, nn.ReLU()), nn.Conv2d(4, 4, 1))
    grey = torch.rand(2, 1, 9, 9)
    expected = model(grey.expand(-1, 3, -1, -1))
    adapt_first_convolution(model, channels)
    torch.testing.assert_close(model(grey.expand(-1, channels, -1, -1)), expected)
    assert model[1][0].in_channels == channels
