"""Beta calibration against scikit-learn's logistic regression, and its constraint."""

import numpy as np
import pytest
import torch
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches, members_and_task
from posthoc.small import Table, tabled
from sklearn.linear_model import LogisticRegression

from levelhead.posthoc.beta import Beta, log_complement
from levelhead.predictor import predict


@pytest.mark.parametrize("parameters", ["abc", "ac"])
def test_it_helps_in_both_orders(parameters):
    check_it_helps(Beta(parameters=parameters))
    check_it_helps(Beta(parameters=parameters), k=2)
    check_both_orders(Beta(parameters=parameters))
    assert gradient_reaches(Beta(parameters=parameters)) > 0.01


@pytest.mark.parametrize("parameters", ["abc", "ac"])
def test_two_classes_are_a_logistic_regression(parameters):
    (member, *_), task = members_and_task(2)
    fitted = Beta(parameters=parameters)(member, task)

    def columns(split):
        p = predict(member, split).log_probs.numpy()
        return np.stack([p[:, 1], -p[:, 0]], -1) if parameters == "abc" else (p[:, 1] - p[:, 0])[:, None]

    oracle = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit(columns(task.calibration), task.calibration.y)
    assert (oracle.coef_ > 0).all()
    np.testing.assert_allclose(
        predict(fitted, task.test).probs, oracle.predict_proba(columns(task.test)), rtol=1e-3, atol=1e-4
    )


def test_slopes_do_not_fall_below_zero():
    """Labels against the prediction: the best slopes would be negative, so only the shift remains."""
    logits = torch.randn(300, 2, dtype=torch.float64)
    y = logits.argmin(-1)
    fitted = Beta()(Table(logits[None]), tabled(y, (200, 100), num_classes=2))
    assert (fitted.slopes == 0).all()
    rate = y[:200].double().mean()
    torch.testing.assert_close(fitted.shift[0].sigmoid(), rate, rtol=1e-4, atol=1e-4)


def test_the_complement_keeps_its_digits():
    logits = torch.tensor([[50.0, 0.0, 1.0], [0.0, 0.1, 0.2]]).double()
    found = log_complement(logits.log_softmax(-1))
    expected = torch.stack(
        [torch.logsumexp(logits[:, [j for j in range(3) if j != k]], -1) - logits.logsumexp(-1) for k in range(3)], -1
    )
    torch.testing.assert_close(found, expected)


def test_wrong_settings_are_named():
    with pytest.raises((ValueError, TypeError), match="parameters"):
        Beta(parameters="ab")
