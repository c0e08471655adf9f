"""The head is replaced, and nothing else; it serves members, samples and pixels."""

import math

import pytest
import torch
from torch import nn

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.random_features import RandomFeatureReadout
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.parameter_groups import groups
from levelhead.surgeries.random_feature_head import RandomFeatureHead

SIGNATURE = Signature(input_shape=(3, 9, 9), num_outputs=4)


def test_the_head_becomes_random_features_of_the_networks_own_width():
    plain = ResNet(depth=8)(SIGNATURE)
    network = RandomFeatureHead(rank=50)(plain)
    assert isinstance(network.head, RandomFeatureReadout)
    assert network.head.features.omega.shape == (64, 50)
    assert network.head.features.length_scale == pytest.approx(math.sqrt(32))
    assert type(plain.head) is nn.Linear
    assert torch.equal(network.embed(SIGNATURE.example(2)), plain.embed(SIGNATURE.example(2)))
    assert network(SIGNATURE.example(2)).shape == (1, 2, 4)


def test_it_replaces_a_head_whatever_it_was():
    class Strange(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z[..., :4].sigmoid()

    network = Network(nn.Flatten(), Strange(), SIGNATURE)
    assert RandomFeatureHead(rank=8)(network)(SIGNATURE.example(2)).shape == (1, 2, 4)


def test_it_acts_on_the_last_axis_only():
    network = RandomFeatureHead(rank=16)(MLP(hidden=(5,))(Signature(input_shape=(6,))))
    z = torch.randn(2, 3, 7, 8, 5)
    torch.testing.assert_close(network.read(z)[1, 2, 3, 4], network.read(z[1:, 2:3, 3:4, 4:5])[0, 0, 0, 0])


def test_two_networks_draw_different_features_and_one_seed_the_same():
    plain = ResNet(depth=8)(SIGNATURE)
    torch.manual_seed(0)
    first, second = RandomFeatureHead(rank=8)(plain), RandomFeatureHead(rank=8)(plain)
    torch.manual_seed(0)
    again = RandomFeatureHead(rank=8)(plain)
    assert not torch.equal(first.head.features.omega, second.head.features.omega)
    assert torch.equal(first.head.features.omega, again.head.features.omega)


def test_beta_is_not_decayed_and_learns_slower():
    network = RandomFeatureHead(rank=1024)(ResNet(depth=8)(SIGNATURE))
    beta = network.head.beta.weight
    (group,) = [g for g in groups(network, lr=0.1, weight_decay=1e-3) if any(p is beta for p in g["params"])]
    assert group["weight_decay"] == 0.0
    assert group["lr"] == pytest.approx(0.1 / 16)


def test_dtype_follows_the_old_head():
    plain = MLP(hidden=(5,))(Signature(input_shape=(6,))).double()
    network = RandomFeatureHead(rank=8)(plain)
    assert {tensor.dtype for tensor in network.head.state_dict().values()} == {torch.float64}


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"length_scale": 0.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RandomFeatureHead(**wrong)
