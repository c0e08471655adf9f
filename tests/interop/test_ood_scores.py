"""Detectors beside pytorch-ood on the same trained network: equal scores, up to the factors that they leave out."""

import numpy as np
import pytest
import torch
from posthoc.small import blobs, mlp, trained
from torch import nn
from torch.testing import assert_close

from levelhead.detectors._fit import Scorer
from levelhead.detectors.energy import Energy
from levelhead.detectors.entropy import Entropy
from levelhead.detectors.feature_density import FeatureDensity
from levelhead.detectors.knn import KNN
from levelhead.detectors.mahalanobis import Mahalanobis
from levelhead.detectors.max_logit import MaxLogit
from levelhead.detectors.max_probability import MaxProbability
from levelhead.detectors.odin import ODIN
from levelhead.detectors.react import ReAct
from levelhead.detectors.relative_mahalanobis import RelativeMahalanobis
from levelhead.detectors.vim import ViM
from levelhead.metrics.ranking import aupr, auroc, fpr95

theirs = pytest.importorskip("pytorch_ood.detector", reason="needs pytorch-ood: make test-interop")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

TASK = blobs((300, 12, 30, 60))
POINT = trained(mlp(TASK, width=4), TASK, steps=30)
BODY, HEAD = POINT.network.features, POINT.network.head
MODEL = nn.Sequential(*BODY, HEAD)
X = torch.cat([TASK.test.x, 6 * torch.randn(40, 2, generator=torch.Generator().manual_seed(1))])
TRAIN = TASK.train.x
with torch.no_grad():
    Z, FEATURES, LOGITS = BODY(TRAIN), BODY(X), MODEL(X)


def ours(spec):
    return spec.fit(POINT, TASK.sealed())(X).detach()


def test_scores_of_logits():
    assert_close(ours(Energy()), theirs.EnergyBased.score(LOGITS))
    assert_close(ours(Energy(temperature=2.5)), theirs.EnergyBased.score(LOGITS, t=2.5))
    assert_close(ours(MaxLogit()), theirs.MaxLogit.score(LOGITS))
    assert_close(ours(Entropy()), theirs.Entropy.score(LOGITS))
    assert_close(ours(MaxProbability()), 1 + theirs.MaxSoftmax.score(LOGITS), atol=1e-6, rtol=0)


def test_mahalanobis_is_twice_theirs_times_the_rows():
    rival = theirs.Mahalanobis(None).fit_features(Z.double(), TASK.train.y)  # its covariance is a sum over rows
    rival.mu, rival.precision = rival.mu.double(), rival.precision.double()
    found = ours(Mahalanobis(shrinkage=0.0))
    assert_close(found, 2 * len(Z) * rival.predict_features(FEATURES.double()), rtol=1e-3, atol=1e-2)


def test_relative_mahalanobis_is_theirs_times_the_rows():
    rival = theirs.RMD(None).fit_features(Z, TASK.train.y)
    expected = len(Z) * rival.predict_features(FEATURES)
    assert_close(ours(RelativeMahalanobis(shrinkage=0.0)).float(), expected, rtol=1e-3, atol=1e-2)


def test_the_density_of_the_features():
    # theirs divides by N_k, ours by N_k - 1: equal rows a class, so theirs on stretched features is ours
    rival = theirs.GMM(None, reg=0.0)
    means = torch.stack([Z[k == TASK.train.y].mean(0) for k in range(3)])
    stretch = (100 / 99) ** 0.5
    rival.fit_features((means[TASK.train.y] + stretch * (Z - means[TASK.train.y])).double(), TASK.train.y)
    found = ours(FeatureDensity(shrinkage=0.0))
    assert_close(found, rival.predict_features(FEATURES.double()), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("k", [1, 10, 50])
def test_nearest_neighbours(k):
    rival = theirs.KNN(None, k=k).fit_features(Z, TASK.train.y)
    assert_close(ours(KNN(k=k)), rival.predict_features(FEATURES), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_vim(dim):
    rival = theirs.ViM(None, d=dim, w=HEAD.weight.detach(), b=HEAD.bias.detach()).fit_features(Z, TASK.train.y)
    assert_close(ours(ViM(dim=dim)).float(), rival.predict_features(FEATURES), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("percentile", [60, 90])
def test_react(percentile):
    rival = theirs.ReAct(BODY, HEAD, percentile=percentile / 100).fit_feature_maps(Z, TASK.train.y)
    assert_close(ours(ReAct(percentile=float(percentile))), rival.predict_feature_maps(FEATURES))


@pytest.mark.parametrize("temperature, magnitude", [(1000.0, 0.0014), (10.0, 0.1)])
def test_odin(temperature, magnitude):
    std = list(POINT.network.signature.std)  # a table's step is in standard deviations
    rival = theirs.ODIN(MODEL, eps=magnitude, temperature=temperature, norm_std=[1 / s for s in std])
    found = Scorer(POINT, ODIN(temperature=temperature, magnitude=magnitude))(X)
    assert_close(found.float(), 1 + rival.predict(X), atol=1e-6, rtol=1e-4)


def test_measures():
    from pytorch_ood.metrics.ood import OODMetrics

    score = ours(Energy())
    outer = torch.arange(len(X)) >= len(TASK.test)
    metrics = OODMetrics()
    metrics.update(score, torch.where(outer, -1, 1))
    found = metrics.compute()
    assert found["AUROC"] == pytest.approx(float(auroc(score, outer)), abs=1e-6)
    assert found["FPR95TPR"] == pytest.approx(float(fpr95(score, outer)), abs=1e-6)
    # they integrate the precision-recall curve by trapezoids
    assert found["AUPR-OUT"] == pytest.approx(float(aupr(score, outer)), abs=0.03)
    assert found["AUPR-IN"] == pytest.approx(float(aupr(score, outer, positive="id")), abs=0.03)
    assert np.isfinite(list(found.values())).all()
