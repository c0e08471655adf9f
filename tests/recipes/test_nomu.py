"""The composition: what it is made of, its units, and what it does on a line."""

import pytest
import torch
from nomu.small import plane
from torch.testing import assert_close

from levelhead.artificial.box import Box
from levelhead.backbones.mlp import MLP
from levelhead.nomu.attached import AttachedUncertainty
from levelhead.nomu.desiderata import desiderata, std_at
from levelhead.nomu.likelihood import model_std
from levelhead.objectives.layer_l2 import LayerL2
from levelhead.passes import seeded
from levelhead.recipes.nomu import nomu
from levelhead.tasks.function import function
from levelhead.text import parse, to_text


@pytest.fixture(scope="module", params=[False, True], ids=["joint", "disjoint"])
def fitted(request):
    task = function("sine", n=6)
    recipe = nomu(MLP((64, 64)), side=(64, 64), disjoint=request.param, epochs=250, lr=3e-3, points=Box())
    return task, recipe.fit(task, 0, rehearsed=True)


def test_no_uncertainty_where_the_function_is_known_and_more_away_from_there(fitted):
    task, predictor = fitted
    found = desiderata(predictor, task.train.x, task.test.x)
    assert found.smallest > 0
    assert found.in_sample < 0.6
    assert found.growth > 0.5
    with torch.no_grad():
        assert float((predictor(task.train.x).mean - task.train.y).abs().max()) < 0.15


def test_side_and_main_weights_have_penalties_of_their_own():
    recipe = nomu(MLP((4,)), side=(3,), l2=1e-3, l2_side=1e-1)
    network = recipe.build(plane())
    (penalty,) = [part for part in recipe.regularisers if isinstance(part, LayerL2)]
    found = {name: penalty.coefficients[group] for name, group in penalty.grouped(network).items()}
    assert {name for name, value in found.items() if value == 1e-1} == {
        "features.side.hidden1.linear.weight",
        "features.side.hidden1.linear.bias",
        "head.raw.weight",
        "head.raw.bias",
    }
    assert len(found) == len(list(network.parameters()))


def test_other_units_give_the_same_answer_in_other_units():
    recipe = nomu(MLP((8,)), side=(8,), epochs=40, lr=1e-2)
    one, other = plane(), plane(scale=50.0, shift=-7.0, x_scale=1000.0)
    plain, scaled = (recipe.fit(task, 0, rehearsed=True) for task in (one, other))
    with torch.no_grad():
        before, after = plain(one.test.x), scaled(other.test.x)
    assert_close(after.mean, 50 * before.mean - 7, rtol=1e-2, atol=0.5)
    assert_close(model_std(after), 50 * model_std(before), rtol=2e-2, atol=0.1)  # a factor, no shift


def test_the_disjoint_variant_is_the_attached_step():
    recipe = nomu(MLP((4,)), side=(3,), disjoint=True, epochs=2)
    assert not recipe.surgery
    predictor = recipe.fit(plane(), 0, rehearsed=True)
    assert isinstance(predictor, AttachedUncertainty)


def test_it_has_a_line_of_text():
    recipe = parse("nomu(side=(8,), epochs=2, points=training_box(margin=0.2))", backbone=MLP((4,)))
    assert recipe == parse(to_text(recipe))
    with seeded(0):
        std = std_at(recipe.fit(plane(), 0), plane().test.x)
    assert std.shape == (12,)
