import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks.deep_fool import DeepFool


@pytest.mark.parametrize("norm, dual", [("l2", 2), ("linf", 1)])
def test_on_a_linear_predictor_it_is_one_step_of_the_known_distance(norm, dual):
    predictor, (x, _) = Linear(scale=0.3), images(30, low=0.45, high=0.55)
    y = predictor(x).label
    found = (
        DeepFool(norm=norm, steps=1)(predictor, x, y, generator()),
        DeepFool(norm=norm).nearest(predictor, x, y, generator()),
    )
    weight = 0.3 * predictor.weight.detach()
    wanted = 1.02 * predictor.signed_margin(x, y) / torch.linalg.vector_norm(weight, ord=dual)
    assert_close(found[0], found[1].x)
    assert_close(found[1].distance, wanted, rtol=1e-3, atol=1e-6)
    assert bool(found[1].success.all())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_distances_are_those_of_the_points(norm):
    predictor, (x, _) = Bent(), images(50)
    y = predictor(x).label
    found = DeepFool(norm=norm).nearest(predictor, x, y, generator())
    order = 2 if norm == "l2" else torch.inf
    distance = torch.linalg.vector_norm((found.x - x).flatten(1), ord=order, dim=1)
    assert_close(found.distance[found.success], distance[found.success])
    assert torch.equal(found.success, ~right(predictor, found.x, y))
    assert found.success.double().mean() > 0.9


def test_rows_that_are_wrong_stay_and_rows_that_cannot_be_fooled_say_so():
    predictor, (x, _) = Bent(), images(20)
    y = predictor(x).label
    y[:5] = (y[:5] + 1) % 3
    found = DeepFool().nearest(predictor, x, y, generator())
    assert torch.equal(found.x[:5], x[:5])
    assert torch.equal(found.distance[:5], torch.zeros(5))
    none = DeepFool(steps=1, overshoot=1e-9).nearest(Bent(scale=0.0), x, torch.zeros(20, dtype=torch.long), generator())
    assert not none.success.any()
    assert torch.equal(none.x, x)
    assert bool(none.distance.isinf().all())


def test_the_scale_of_the_logits_does_not_matter():
    plain, scaled, (x, _) = Bent().double(), Bent().double(), images(20)
    scaled.net[-1].weight.data *= 50
    scaled.net[-1].bias.data *= 50
    x = x.double()
    y = plain(x).label
    first, second = (DeepFool().nearest(predictor, x, y, generator()) for predictor in (plain, scaled))
    assert_close(first.distance, second.distance)
