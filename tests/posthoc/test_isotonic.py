"""Isotonic calibration against scikit-learn's curves, one against the rest and for the top label."""

import numpy as np
import pytest
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches, members_and_task
from sklearn.isotonic import IsotonicRegression

from levelhead.posthoc.isotonic import Isotonic
from levelhead.predictor import predict


@pytest.mark.parametrize("target", ["classes", "top"])
def test_it_helps_in_both_orders(target):
    check_it_helps(Isotonic(target=target))
    check_both_orders(Isotonic(target=target))
    assert gradient_reaches(Isotonic(target=target)) > 0.001


def oracle(x, hit, at):
    return IsotonicRegression(out_of_bounds="clip").fit(x, hit).predict(at)


def test_one_against_the_rest_is_scikit_learns():
    (member, *_), task = members_and_task()
    fitted = Isotonic(blend=0.0)(member, task)
    held, new = (predict(member, split).probs.numpy() for split in (task.calibration, task.test))
    hits = np.eye(4)[task.calibration.y.numpy()]
    curved = np.stack([oracle(held[:, k], hits[:, k], new[:, k]) for k in range(4)], axis=-1)
    np.testing.assert_allclose(predict(fitted, task.test).probs, curved / curved.sum(-1, keepdims=True), atol=1e-9)


def test_the_top_label_gets_the_accuracy_of_its_confidence():
    (member, *_), task = members_and_task()
    fitted = Isotonic(target="top", blend=0.0)(member, task)
    held, new = predict(member, task.calibration), predict(member, task.test)
    right = (held.label == task.calibration.y).double()
    expected = oracle(held.confidence.numpy(), right.numpy(), new.confidence.numpy())
    found = predict(fitted, task.test).probs.gather(-1, new.label[:, None])[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_blend_keeps_the_likelihood_finite():
    (member, *_), task = members_and_task()
    assert predict(Isotonic()(member, task), task.test).log_prob(task.test.y).isfinite().all()
    assert predict(Isotonic()(member, task), task.test).probs.min() > 0


@pytest.mark.parametrize("wrong", [{"target": "each"}, {"blend": 1.5}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        Isotonic(**wrong)
