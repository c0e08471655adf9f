"""Lesions: what is left without a unit, and that everything comes back to the last bit."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from levelhead.analyses.lesion import lesion_study, units, without
from levelhead.backbones.alter_net import AlterNet
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical, Signature
from levelhead.predictor import Ensemble, Point
from levelhead.types import CannotCompose

SIGNATURE = Signature(input_shape=(3, 16, 16), num_outputs=4, likelihood=Categorical(4))


@pytest.fixture
def x():
    return torch.rand(3, 3, 16, 16)


@pytest.fixture
def network():
    return ResNet(depth=14, width=4)(SIGNATURE).eval()


def logits(module, x):
    with torch.no_grad():
        return module(x)


def test_blocks_with_an_identity_shortcut_can_go_and_the_others_are_told(network, x):
    found, left = units(network, x)
    assert [unit.name for unit in found] == ["stage1.0", "stage1.1", "stage2.1", "stage3.1"]
    assert set(left) == {"stage2.0", "stage3.0"}
    assert all("shortcut" in reason for reason in left.values())


@pytest.mark.parametrize("mode", ["branch", "identity"])
@pytest.mark.parametrize(
    "backbone", [ResNet(depth=14, width=4), AlterNet(depth=18, width=4)], ids=lambda b: type(b).__name__
)
def test_logits_come_back_to_the_last_bit(backbone, mode, x):
    network = backbone(SIGNATURE).eval()
    state = {name: t.clone() for name, t in network.state_dict().items()}
    before = logits(network, x)
    for unit in units(network, x, mode=mode)[0]:
        with without(network, unit):
            assert not torch.equal(logits(network, x), before), unit
        assert torch.equal(logits(network, x), before), unit
    assert all(torch.equal(state[name], t) for name, t in network.state_dict().items())


def test_without_its_branch_a_block_is_its_shortcut(network, x):
    unit = next(unit for unit in units(network, x)[0] if unit.name == "stage2.1")
    with without(network, unit):
        removed = logits(network, x)
    network.get_submodule("features.stage2.1").body = Zero()
    assert torch.equal(removed, logits(network, x))


class Zero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def test_a_branch_that_returns_zero_is_worth_nothing(network, x):
    nn.init.zeros_(network.get_submodule("features.stage1.1.body.norm2").weight)
    before = logits(network, x)
    unit = next(unit for unit in units(network, x)[0] if unit.name == "stage1.1")
    with without(network, unit):
        assert torch.equal(logits(network, x), before)


def test_a_convolution_that_is_passed_by_is_the_identity(network, x):
    found, left = units(network, x, mode="identity")
    assert "stem.conv" in left
    unit = next(unit for unit in found if unit.name == "stage1.0.body.conv1")
    with without(network, unit):
        removed = logits(network, x)
    network.get_submodule("features.stage1.0.body").conv1 = nn.Identity()
    assert torch.equal(removed, logits(network, x))


def test_of_an_ensemble_the_units_of_one_name_go_together(x):
    members = [Point(ResNet(depth=8, width=4)(SIGNATURE)) for _ in range(2)]
    ensemble = Ensemble(members)
    (unit,) = units(ensemble, x)[0]
    with torch.no_grad(), without(ensemble, unit):
        both = ensemble(x).logits
        assert torch.equal(both, torch.cat([member(x).logits for member in members]))
    with torch.no_grad():
        assert not torch.equal(both, ensemble(x).logits)


def test_a_study_gives_the_change_of_the_score(network, x):
    before = float(logits(network, x).sum())
    found = lesion_study(network, x, lambda: float(logits(network, x).sum()))
    assert len(found) == 4
    for lesion in found:
        assert lesion.change == pytest.approx(lesion.score - before)


def test_networks_without_units_are_refused_with_what_else_there_is():
    signature = replace(SIGNATURE, input_shape=(1, 16, 16))
    with pytest.raises(CannotCompose, match="mode='identity'"):
        units(LeNet()(signature), torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="mode must be one of"):
        units(LeNet()(signature), torch.rand(2, 1, 16, 16), mode="all")
