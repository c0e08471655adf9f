"""Vector scaling: closed forms, both orders of pooling as text, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches, members_and_task, nll
from posthoc.small import Table, line, mlp, tabled, trained
from torch.func import grad

from levelhead.posthoc.temperature import Temperature
from levelhead.posthoc.vector_scaling import VectorScaling
from levelhead.predictor import Ensemble, Predictor, predict
from levelhead.recipe import DeepEnsemble
from levelhead.tasks.stripes import stripes
from levelhead.text import parse
from levelhead.types import CannotCompose


def test_it_helps_and_is_no_worse_than_temperature():
    check_it_helps(VectorScaling())
    members, task = members_and_task()
    assert nll(VectorScaling()(members[0], task), task) <= nll(VectorScaling(shared=True)(members[0], task), task)
    assert nll(VectorScaling(shared=True)(members[0], task), task) < nll(Temperature()(members[0], task), task)


def test_the_two_orders_differ_and_are_what_they_say():
    check_both_orders(VectorScaling())


@pytest.mark.parametrize("text", ["deep_ensemble(size=2) + vector_scaling", "vector_scaling + deep_ensemble(size=2)"])
def test_both_orders_are_recipes_of_text(text):
    recipe = parse(f"mlp(hidden=(8,)) + sgd(epochs=2, batch_size=8) + {text}")
    assert isinstance(recipe, DeepEnsemble)
    task = stripes(n=24, size=12)
    fitted = recipe.fit(task, 0, rehearsed=True)
    x = task.test.x / 255
    parts: list[Predictor]
    if recipe.posthoc:
        assert fitted.fitted_on == task.calibration.digest
        expected = fitted.mapped(fitted.inner(x).log_probs.double()).exp()
    else:
        assert isinstance(fitted, Ensemble)
        parts = list(fitted.members)
        expected = torch.stack([p.mapped(p.inner(x).log_probs.double()).exp() for p in parts]).mean(0)
    torch.testing.assert_close(fitted(x).probs.double(), expected, rtol=1e-5, atol=1e-6)


def test_at_the_fit_the_loss_is_level():
    members, task = members_and_task()
    fitted = VectorScaling()(members[0], task)
    z = predict(members[0], task.calibration).log_probs
    z = z - z.mean(-1, keepdim=True)
    slope = grad(lambda w: F.cross_entropy(z * w + fitted.bias, task.calibration.y))(fitted.weight)
    assert slope.abs().max() < 1e-4


def test_gradients_pass():
    assert gradient_reaches(VectorScaling()) > 0.01


def test_rows_that_are_all_right_are_warned_of():
    y = torch.arange(60) % 3
    task = tabled(y, (40, 20), num_classes=3)
    with pytest.warns(UserWarning, match="classified right"):
        fitted = VectorScaling()(Table(F.one_hot(y, 3).double()[None]), task)
    assert fitted.weight.isfinite().all()


def test_real_targets_are_refused_with_advice():
    task = line()
    with pytest.raises(CannotCompose, match="VarianceScaling"):
        VectorScaling()(trained(mlp(task), task, steps=5), task)


def test_void_sites_do_not_count():
    logits = torch.randn(1, 8, 3, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 255, 255, 1, 2])
    kept = y != 255
    whole = VectorScaling()(Table(logits), tabled(y, (7, 1), num_classes=3, void=255))
    some = logits[:, :7][:, kept[:7]]
    part = VectorScaling()(Table(some), tabled(torch.cat([y[:7][kept[:7]], y[7:]]), (5, 1), num_classes=3))
    torch.testing.assert_close(whole.weight, part.weight)
