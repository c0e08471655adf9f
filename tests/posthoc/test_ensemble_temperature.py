"""Ensemble temperature scaling: no worse than temperature, accuracy unchanged, weights at their optimum."""

import pytest
import torch
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches, members_and_task, nll
from scipy.optimize import minimize

from levelhead.posthoc.ensemble_temperature import EnsembleTemperature, three
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import predict


def test_it_helps_in_both_orders_and_keeps_labels():
    check_it_helps(EnsembleTemperature())
    check_both_orders(EnsembleTemperature())
    assert gradient_reaches(EnsembleTemperature()) > 0.01
    (member, *_), task = members_and_task()
    fitted = EnsembleTemperature()(member, task)
    assert torch.equal(predict(fitted, task.test).label, predict(member, task.test).label)
    assert nll(fitted, task) <= nll(Temperature()(member, task), task) + 1e-9


def test_the_weights_are_those_of_a_general_optimiser():
    (member, *_), task = members_and_task()
    fitted = EnsembleTemperature()(member, task)
    parts = three(predict(member, task.calibration).log_probs, fitted.temperature).exp()
    likelihoods = parts.gather(-1, task.calibration.y[None, :, None].expand(3, -1, 1))[..., 0].mT

    def loss(w):
        return -float((likelihoods @ torch.tensor(w, dtype=torch.float64)).log().mean())

    best = minimize(loss, [1 / 3] * 3, bounds=[(0, 1)] * 3, constraints={"type": "eq", "fun": lambda w: sum(w) - 1})
    assert loss(fitted.weights.tolist()) <= best.fun + 1e-7
    assert float(fitted.weights.sum()) == pytest.approx(1)


def test_bounds_are_checked():
    with pytest.raises(ValueError, match="lowest"):
        EnsembleTemperature(lowest=3.0, highest=2.0)
