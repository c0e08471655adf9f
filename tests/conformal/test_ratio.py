"""Density ratios: a logistic regression against scikit-learn's and against the truth."""

import dataclasses

import numpy as np
import pytest
import torch
from posthoc.small import Table, blobs, mlp
from sklearn.linear_model import LogisticRegression

from levelhead.conformal.ratio import DensityRatio, described, fitted_ratio, shift_weights
from levelhead.posthoc.lac import LAC
from levelhead.predictor import Ensemble, Point
from levelhead.tasks.split import unlabelled
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose


def test_it_is_a_logistic_regression_and_near_the_truth():
    """N(0, 1) against N(1, 1): log w(x) = x - 1/2."""
    torch.manual_seed(0)
    old, new = torch.randn(4000, 2), torch.randn(4000, 2) + torch.tensor([1.0, 0.0])
    ratio = fitted_ratio(old, new, penalty=1e-6)
    x = torch.randn(100, 2)
    slope = np.polyfit(x[:, 0].numpy(), ratio(x).numpy(), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.08)
    z = ((torch.cat([old, new]).double() - ratio.mean) / ratio.scale).numpy()
    oracle = LogisticRegression(C=1e6, tol=1e-10).fit(z, np.arange(8000) >= 4000)
    np.testing.assert_allclose(ratio.coefficients, oracle.coef_[0], rtol=1e-3, atol=1e-3)


def test_a_table_holds_it_and_constant_features_do_no_harm():
    old, new = torch.randn(50, 3), torch.randn(50, 3)
    old[:, 1] = new[:, 1] = 2.0
    ratio = fitted_ratio(old, new, penalty=0.1)
    assert ratio(old).isfinite().all()
    torch.testing.assert_close(DensityRatio.of(ratio.table)(old), ratio(old))


def test_images_are_described_by_features_and_rows_by_themselves():
    task = blobs()
    network = mlp(task)
    torch.testing.assert_close(described(Point(network), task.test.x), task.test.x.double())
    images = stripes(n=24, size=8)
    features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    point = Point(type(network)(features, torch.nn.Linear(5, 3), images.signature, width=5))
    x = images.test.x / 255
    expected = features(x).double().detach()
    torch.testing.assert_close(described(point, x), expected)
    torch.testing.assert_close(described(Ensemble([point, point]), x), expected)


def test_a_shift_too_large_is_warned_of_and_missing_rows_are_refused():
    task = blobs((60, 12, 90, 20))
    with pytest.raises(CannotCompose, match="unlabelled="):
        shift_weights(Table(), task, LAC(), step="LAC()")
    far = dataclasses.replace(task, unlabelled=unlabelled("new", task.test.x + 20.0))
    with pytest.warns(UserWarning, match="are worth"):
        shift_weights(Table(), far, LAC(ratio_penalty=1e-6), step="LAC()")
