"""Variance over places and over passes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.analyses.variance import feature_map_variance, pass_variance, spatial_variance
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical, Signature
from levelhead.surgeries.mc_dropout import MCDropout

SIGNATURE = Signature(input_shape=(3, 16, 16), num_outputs=4, likelihood=Categorical(4))
X = torch.linspace(0, 1, 6 * 3 * 256).reshape(6, 3, 16, 16)


def test_closed_forms():
    z = torch.randn(4, 3, 5, 7, dtype=torch.float64)
    assert_close(spatial_variance(z), z.flatten(2).var(-1, unbiased=True).mean(1))
    assert_close(spatial_variance(3 * z + 2), 9 * spatial_variance(z))
    assert float(spatial_variance(torch.ones(1, 2, 4, 4))) == 0


def test_a_network_is_read_block_by_block_and_batches_do_not_matter():
    network = ResNet(depth=8, width=4)(SIGNATURE)
    found, again = feature_map_variance(network, X), feature_map_variance(network, X, batch_size=4)
    assert [v.block.name for v in found] == ["stem", "stage1.0", "stage2.0", "stage3.0"]
    for one, other in zip(found, again, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-5)
    network.eval()
    with torch.no_grad():
        z = network.features[:2](X)
    assert found[0].value == pytest.approx(float(spatial_variance(z).mean()), rel=1e-5)


class Scaled(nn.Module):
    """x + dropout(linear(x)): the variance of the sum is known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.conv(x))


def test_dropout_of_anybodys_module_has_the_variance_that_it_should():
    # of a factor that is 0 or 2 with equal odds the variance is 1
    module = nn.Sequential(nn.Identity(), Scaled()).eval()
    (variance,) = [v for v in pass_variance(module, torch.ones(4, 1, 20, 20), passes=20) if v.block.name != "stem"]
    assert variance.value == pytest.approx(1.0, rel=0.05)
    assert not module[1].drop.training


def test_nothing_varies_in_front_of_the_first_layer_that_draws_and_seeds_repeat():
    network = MCDropout(p=0.3)(ResNet(depth=8, width=4)(SIGNATURE))
    found = pass_variance(network, X, passes=3)
    assert found[0].value == 0
    assert found[-1].value > 0
    assert found == pass_variance(network, X, passes=3)
    assert found != pass_variance(network, X, passes=3, seed=9)


def test_what_does_not_draw_is_told():
    network = ResNet(depth=8, width=4)(SIGNATURE)
    with pytest.raises(ValueError, match="no layer draws"):
        pass_variance(network, X)
    with pytest.raises(ValueError, match="passes must be at least 2"):
        pass_variance(network, X, passes=1)
