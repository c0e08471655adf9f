"""Variance scaling against its closed form and maximum likelihood."""

import pytest
import torch
from posthoc.small import Table, blobs, line, mlp, tabled, trained

from levelhead.posthoc.temperature import Temperature
from levelhead.posthoc.variance_scaling import VarianceScaling
from levelhead.predictor import predict
from levelhead.types import CannotCompose


def mixture():
    torch.manual_seed(0)
    y = torch.randn(300, 2, dtype=torch.float64) * torch.tensor([1.0, 5.0]).double()
    means = 0.3 * torch.randn(3, 300, 2, dtype=torch.float64)
    variances = 0.1 + torch.rand(3, 300, 2, dtype=torch.float64)
    return Table(means=means, variances=variances), tabled(y, (200, 100))


def test_squared_scores_have_mean_one_for_every_target():
    table, task = mixture()
    belief = predict(VarianceScaling()(table, task), task.calibration)
    y = task.calibration.y
    torch.testing.assert_close(((y - belief.mean).square() / belief.variance).mean(0), torch.ones(2).double())


def test_means_stay_and_uncertainties_scale_together():
    table, task = mixture()
    before, fitted = predict(table, task.test), VarianceScaling()(table, task)
    after = predict(fitted, task.test)
    torch.testing.assert_close(after.mean, before.mean)
    torch.testing.assert_close(after.variance, fitted.factors * before.variance)
    torch.testing.assert_close(after.total() - after.aleatoric(), after.epistemic())


def test_for_one_gaussian_it_is_maximum_likelihood():
    task = line()
    point = trained(mlp(task), task)
    scaled, tempered = VarianceScaling()(point, task), Temperature()(point, task)
    assert float(scaled.factors) == pytest.approx(tempered.temperature, rel=1e-4)


def test_classes_are_refused_with_advice():
    task = blobs()
    with pytest.raises(CannotCompose, match="Temperature"):
        VarianceScaling()(trained(mlp(task), task, steps=2), task)
