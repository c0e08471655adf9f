"""APS: its law of coverage, the top label, and randomness that belongs to the row."""

import pytest
import torch
from posthoc.covered import classes, covered, follows_the_beta
from posthoc.small import tabled

from levelhead.posthoc.aps import APS
from levelhead.posthoc.lac import LAC
from levelhead.predictor import predict


def sets_of(step, seed=0):
    table, y = classes(seed)
    task = tabled(y, (99, 400), num_classes=6)
    return predict(step(table, task), task.test), task


@pytest.mark.parametrize("randomised", [True, False])
def test_coverage_has_its_law(randomised):
    counts = covered(APS(randomised=randomised), classes)
    if randomised:
        follows_the_beta(counts, 0.1)
    assert sum(counts) / len(counts) / 400 > 0.885


def test_without_randomness_the_top_label_is_in_every_set_that_has_any():
    belief, _ = sets_of(APS(randomised=False))
    assert belief.sets.gather(-1, belief.label[:, None])[belief.sets.any(-1)].all()
    probs, order = belief.probs.sort(-1, descending=True)
    kept = belief.sets.gather(-1, order)
    assert torch.equal(kept, kept.cummin(-1).values)  # from the top down, without gaps
    assert probs.shape == kept.shape


def test_sets_are_larger_than_lacs_and_nested_in_alpha():
    size = {type(step).__name__: sum(sets_of(step, seed)[0].sets.double().sum(-1).mean() for seed in range(10))
            for step in (LAC(), APS())}  # fmt: skip
    assert size["APS"] > size["LAC"]
    small, large = (sets_of(APS(alpha))[0].sets for alpha in (0.3, 0.1))
    assert (small <= large).all()


def test_a_row_has_one_set_in_any_batch_and_fresh_ones_when_asked():
    table, y = classes(0)
    task = tabled(y, (99, 400), num_classes=6)
    fitted = APS()(table, task)
    whole = predict(fitted, task.test).sets
    assert torch.equal(predict(fitted, task.test, batch_size=7).sets, whole)
    assert not torch.equal(fitted.with_noise(3)(task.test.x).sets, whole)
    fresh = fitted.with_noise(None)
    assert not torch.equal(fresh(task.test.x).sets, fresh(task.test.x).sets)
