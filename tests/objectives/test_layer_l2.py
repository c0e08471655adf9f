"""The penalty by group against the sum written out, and its units."""

import dataclasses

import pytest
import torch
from networks import Scaled, network
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.network import Network
from levelhead.objectives.layer_l2 import LayerL2
from levelhead.recipe import Recipe
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose
from levelhead.values import get_path, set_path

TASK = stripes(n=24, size=12)
BATCH = Batch(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))


def penalty(spec: LayerL2, made: Network) -> torch.Tensor:
    term = spec.start(made, TASK, Run(0))
    forward = Forward(made, BATCH)
    return term(network_loss, forward) - network_loss(forward)


def test_each_group_has_its_coefficient():
    made = network()
    spec = LayerL2(groups=("head.weight", "head.*", "features.0.*"), coefficients=(2.0, 3.0, 0.5))
    first = made.features[0]
    squares = [made.head.weight.square().sum(), made.head.bias.square().sum()]
    squares.append(first.weight.square().sum() + first.bias.square().sum())
    expected = (2 * squares[0] + 3 * squares[1] + 0.5 * squares[2]) / len(TASK.train)
    assert_close(penalty(spec, made), expected)


def test_parameters_of_no_group_and_vectors_of_members_are_left_out():
    made = network(Scaled(2, 5), num_members=2)
    names = LayerL2(groups=("features.*",), coefficients=(1.0,)).grouped(made)
    assert set(names) == {"features.0.weight", "features.0.bias"}


def test_its_gradient_is_weight_decay_in_its_units():
    made = network()
    penalty(LayerL2(coefficients=(4.0,)), made).backward()
    assert_close(made.head.weight.grad, 8 / len(TASK.train) * made.head.weight.detach())


def test_a_group_without_parameters_is_refused_before_training():
    recipe = Recipe(backbone=MLP(), regularisers=(LayerL2(groups=("tail.*",), coefficients=(1.0,)),))
    with pytest.raises(CannotCompose, match=r"tail.*head.weight"):
        recipe.fit(TASK)


def test_a_path_leads_to_every_coefficient():
    recipe = Recipe(backbone=MLP(), regularisers=(LayerL2(groups=("head.*", "*"), coefficients=(1.0, 2.0)),))
    path = "regularisers.layer_l2.coefficients.1"
    assert get_path(set_path(recipe, path, 7.0), path) == 7.0


@pytest.mark.parametrize("changes", [{"coefficients": (1.0, 2.0)}, {"coefficients": (-1.0,)}, {"groups": ()}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="LayerL2"):
        dataclasses.replace(LayerL2(), **changes)
