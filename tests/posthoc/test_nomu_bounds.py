"""Bounds of a chosen width: each way does on the calibration rows what it promises."""

import pytest
import torch
from contracts.styles import attempt, fit, regression
from nomu.small import beside, plane

from levelhead.nomu.bounds import gaussian_nll
from levelhead.nomu.likelihood import model_std
from levelhead.posthoc.attach_nomu import AttachNomu
from levelhead.posthoc.nomu_bounds import NomuBounds
from levelhead.posthoc.variance_scaling import VarianceScaling
from levelhead.predictor import Ensemble, Point

TASK = plane()
ROWS = TASK.calibration
SCALE = TASK.likelihood.scale[0]


@pytest.fixture(scope="module")
def predictor():
    return Point(beside(TASK))


def sigma(predictor):
    return model_std(predictor(ROWS.x)).detach().double()


def test_a_mean_width_is_met_and_the_means_stay(predictor):
    after = NomuBounds(by="mean_width", budget=0.3)(predictor, TASK.sealed())
    assert float((2 * sigma(after)).mean()) == pytest.approx(0.3 * SCALE, rel=1e-5)
    assert torch.equal(after(ROWS.x).mean, predictor(ROWS.x).mean)


def test_a_coverage_is_met(predictor):
    after = NomuBounds(by="coverage", level=0.75)(predictor, TASK.sealed())
    inside = (ROWS.y - after(ROWS.x).mean).abs() <= sigma(after) * (1 + 1e-4)
    assert float(inside.double().mean()) == 0.75


def test_without_noise_the_likelihood_chooses_as_variance_scaling_does(predictor):
    after, scaled = NomuBounds()(predictor, TASK.sealed()), VarianceScaling()(predictor, TASK.sealed())
    torch.testing.assert_close(after(ROWS.x).variance, scaled(ROWS.x).variance, rtol=1e-4, atol=1e-6)


def nll(predictor, task=TASK):
    belief = predictor(task.calibration.x)
    return float(gaussian_nll(task.calibration.y - belief.mean, belief.variance).detach())


def test_a_tuned_readout_is_at_least_as_likely(predictor):
    step = NomuBounds(tune_readout=True, num_l_min=6, num_l_max=5, num_c=60)
    after = step(predictor, TASK.sealed())
    assert nll(after) < nll(NomuBounds()(predictor, TASK.sealed())) + 0.02
    assert 5e-3 <= after.readout.l_min <= after.readout.l_max <= 10.001


def test_noise_stays_and_only_what_it_does_not_explain_is_fitted():
    task = regression()
    attached = AttachNomu(steps=3)(fit("mlp", task=task, epochs=2), task.sealed())
    after = NomuBounds()(attached, task.sealed())
    x = task.calibration.x
    torch.testing.assert_close(after(x).aleatoric(), attached(x).aleatoric(), rtol=1e-4, atol=1e-5)
    assert nll(after, task) <= nll(attached, task) + 1e-3


def test_predictors_without_a_side_network_are_refused_with_advice(predictor):
    for other in (Ensemble([predictor, predictor]), fit("mlp", task=regression())):
        found, text = attempt(lambda other=other: NomuBounds()(other, TASK.sealed()))
        assert found is None
        assert "SideNetwork" in text


@pytest.mark.parametrize(
    "wrong", [{"level": 0.0}, {"budget": 0.0}, {"tune_readout": True, "by": "coverage"}, {"num_c": 0}]
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="NomuBounds"):
        NomuBounds(**wrong)
