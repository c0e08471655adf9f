import pytest
import torch
from torch import nn

from levelhead.layers.norms import check_norm, norm


@pytest.mark.parametrize(
    "channels, groups", [(16, 2), (32, 4), (64, 8), (256, 32), (512, 32), (17, 1), (12, 1), (40, 4)]
)
def test_groups_divide_the_channels_and_hold_at_least_eight(channels, groups):
    layer = norm("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups


def test_kinds():
    assert isinstance(norm("batch", 4), nn.BatchNorm2d)
    assert isinstance(norm("none", 4), nn.Identity)


def test_a_group_norm_treats_each_example_alone():
    layer, x = norm("group", 16), torch.randn(4, 16, 3, 3)
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


def test_check_names_spec_and_choices():
    with pytest.raises(ValueError, match="Spec: norm must be one of 'batch', 'group'; got 'none'"):
        check_norm("Spec", "none", allowed=("batch", "group"))
