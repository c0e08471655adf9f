"""The targets are functions of this file, found as `backbones.test_factory:name`."""

import pytest
import torch
from torch import nn

from levelhead.backbones.factory import Factory
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.types import CannotCompose

SIGNATURE = Signature((2, 3, 3), 4, Categorical(4), (0.5, 0.25), (0.5, 2.0))


class Small(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, hidden: int = 5):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(9 * in_channels, hidden), nn.Tanh())
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x):
        return self.fc(self.body(x))


def plain():
    return Small(4, 2)


def own_network(signature):
    return Network(nn.Flatten(), nn.Linear(18, signature.num_outputs), signature)


def nothing(num_outputs, input_shape):
    return None


def probabilities(num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(18, num_outputs), nn.Softmax(-1))


def factory(name: str, **fields) -> Factory:
    return Factory(target=f"{__name__}:{name}", **fields)


def test_a_class_gets_what_its_parameters_name():
    network = factory("Small", options={"hidden": 7})(SIGNATURE)
    assert network.width == 7
    assert network.head.out_features == 4
    assert network.features.model.body[1].in_features == 18


def test_inputs_are_normalised_in_front_of_the_module():
    network = factory("Small")(SIGNATURE)
    torch.manual_seed(0)
    theirs = Small(4, 2)
    network.features.model.body.load_state_dict(theirs.body.state_dict())
    network.head.load_state_dict(theirs.fc.state_dict())
    x = torch.rand(3, 2, 3, 3)
    mean, std = torch.tensor([0.5, 0.25])[:, None, None], torch.tensor([0.5, 2.0])[:, None, None]
    torch.testing.assert_close(network(x)[0], theirs((x - mean) / std))


def test_a_module_that_normalises_itself_is_left_alone():
    network = factory("plain", normalise=False)(SIGNATURE)
    assert isinstance(network.features, Small)


def test_torchs_seed_decides_the_weights():
    def weights():
        torch.manual_seed(5)
        return factory("plain")(SIGNATURE).state_dict()

    one, two = weights(), weights()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_network_is_returned_as_it_is():
    network = factory("own_network")(SIGNATURE)
    assert isinstance(network.features, nn.Flatten)


@pytest.mark.parametrize("target", ["nowhere", ":f", "module:"])
def test_a_target_without_module_or_function(target):
    with pytest.raises(ValueError, match="target must read"):
        Factory(target=target)


@pytest.mark.parametrize("target", ["no.such.module:f", f"{__name__}:absent"])
def test_a_target_that_is_not_there(target):
    with pytest.raises(ValueError, match="cannot be found"):
        Factory(target=target)(SIGNATURE)


def test_a_target_that_returns_no_module():
    with pytest.raises(TypeError, match=r"wants to return an nn\.Module or a Network, got NoneType"):
        factory("nothing")(SIGNATURE)


def test_a_head_that_is_not_there():
    with pytest.raises(ValueError, match=r"head='model\.nope'"):
        factory("plain", head="nope")(SIGNATURE)


def test_something_after_the_head():
    with pytest.raises(CannotCompose, match="something after"):
        factory("probabilities", head="1")(SIGNATURE)
