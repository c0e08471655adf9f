"""What surgeries and objectives for real targets must do: the contracts of their families, on a table.

`wants_targets: ClassVar = True` says that a part makes sense for real targets only.
"""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from contracts.styles import attempt, for_targets, made, name, regression

from levelhead.forward import Forward, extend, network_loss
from levelhead.network import Network
from levelhead.passes import keeping_statistics
from levelhead.predictor import Point
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.training import Run

TASK = regression()
X = TASK.test.x
STYLES = ("mlp", "mlp-norm")
SURGERIES, OBJECTIVES = for_targets("surgeries"), for_targets("objectives")
each_surgery = pytest.mark.parametrize("surgery", SURGERIES, ids=name)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=name)


@cache
def company(objective: Any) -> tuple[Any, ...]:
    """The surgery without which an objective refuses every network; none where it needs none."""
    for surgery in ((), *((spec,) for spec in SURGERIES)):
        network = made("mlp", *surgery, task=TASK)
        if attempt(lambda network=network: objective.start(network, TASK.sealed(), Run(0)))[0] is not None:
            return surgery
    raise AssertionError(f"{objective} refuses everything")


def value(objectives: list[Any], network: Network) -> torch.Tensor:
    terms = [objective.start(network, TASK.sealed(), Run(0)) for objective in objectives]
    return extend(network_loss, terms)(Forward(network, next(TASK.train.ordered(16))))


@each_surgery
@pytest.mark.parametrize("style", STYLES)
def test_a_surgery_leaves_its_argument_alone_and_says_what_it_did(surgery, style):
    before = made(style, task=TASK).eval()
    state, structure = copy.deepcopy(before.state_dict()), repr(before)
    after = surgery(before)
    assert repr(before) == structure
    assert all(torch.equal(t, state[key]) for key, t in before.state_dict().items())
    assert not {id(p) for p in before.parameters()} & {id(p) for p in after.parameters()}
    known = dict(after.named_modules())
    assert all(place in known for note in after.notes for place in note.converted)
    assert len(after.notes) > len(before.notes)
    assert not any(module.training for module in after.modules())


@each_surgery
@pytest.mark.parametrize("style", STYLES)
def test_a_network_after_surgery_is_one_of_its_declared_shape(surgery, style, tmp_path):
    after = made(style, surgery, task=TASK).eval()
    assert after(X).shape == (after.num_members, len(X), after.num_outputs)
    assert after.embed(X).shape == (after.num_members, len(X), after.width)
    assert after.likelihood.num_outputs == after.num_outputs
    other = made(style, surgery, seed=1, task=TASK).eval()
    other.load_state_dict(after.state_dict())
    assert torch.equal(other(X), after(X))
    again = load(save(Point(after), tmp_path / "predictor"))
    assert torch.equal(again(X).variance, Point(after)(X).variance)
    assert surgery(made(style, task=TASK).double())(X.double()).dtype == torch.float64


@each_surgery
def test_classes_are_refused_by_a_surgery_with_advice(surgery):
    assert attempt(lambda: made("mlp", surgery))[0] is None


@each_objective
@pytest.mark.parametrize("style", STYLES)
def test_an_objective_is_one_number_that_reaches_every_parameter(objective, style):
    network = made(style, *company(objective), task=TASK).train()
    torch.manual_seed(0)
    loss = value([objective], network)
    assert loss.shape == ()
    loss.backward()
    assert all(p.grad is not None and p.grad.any() and p.grad.isfinite().all() for p in network.parameters())
    torch.manual_seed(0)
    with keeping_statistics(network):
        assert torch.equal(value([objective], network), loss)
    assert all(module.training for module in network.modules())


@each_objective
def test_classes_are_refused_by_an_objective_with_advice(objective):
    assert attempt(lambda: objective.start(made("mlp"), TASK.sealed(), Run(0)))[0] is None


@each_objective
def test_two_fits_from_one_recipe_agree_and_it_goes_inside_and_outside_another(objective):
    surgery, sampler = company(objective), SGD(epochs=2, batch_size=8, lr=0.01)
    recipe = Recipe(backbone=made_mlp, surgery=surgery, regularisers=(objective, objective), sampler=sampler)
    first, again = (recipe.fit(TASK, 3, rehearsed=True).state_dict() for _ in range(2))
    assert all(torch.equal(t, again[key]) for key, t in first.items())


def made_mlp(signature: Any) -> Network:
    return made("mlp", task=TASK)
