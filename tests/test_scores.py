import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.beliefs import of_batch
from levelhead.detection import detection_scores
from levelhead.metrics.calibration import ece, noise_floor
from levelhead.metrics.classification import accuracy, brier, nll
from levelhead.metrics.diversity import disagreement, pairwise_kl
from levelhead.metrics.regression import central_coverage, mixture_cdf, mixture_nll, rmse
from levelhead.metrics.statistics import bootstrap
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.scores import as_records, better, resampled_means, scores
from levelhead.types import Batch


def classes(logits, y):
    return of_batch(CategoricalMixture(logits), Batch(torch.zeros(len(y), 1), y, torch.arange(len(y))))


def targets(means, variances, y, log_weights=None):
    weights = torch.zeros(len(means)) if log_weights is None else log_weights
    belief = GaussianMixture(means, variances, weights)
    return of_batch(belief, Batch(torch.zeros(len(y), 1), y, torch.arange(len(y))))


@pytest.fixture
def labelled():
    return classes(2 * torch.randn(2, 400, 5), torch.randint(5, (400,)))


@pytest.fixture
def measured():
    means, variances = torch.randn(3, 300, 1), torch.rand(3, 300, 1) + 0.2
    return targets(means, variances, torch.randn(300, 1), torch.tensor([0.0, 1.0, -1.0]))


def test_headline_numbers_are_the_metrics(labelled):
    found = scores(labelled)
    for name, metric in (("accuracy", accuracy), ("nll", nll), ("brier", brier), ("ece", ece)):
        assert found[name] == pytest.approx(float(metric(labelled.log_probs, labelled.y)), abs=1e-12), name


def test_a_certain_and_right_belief_has_perfect_scores():
    y = torch.randint(3, (50,))
    found = scores(classes(100 * torch.nn.functional.one_hot(y, 3).float()[None], y))
    assert found["accuracy"] == 1
    assert "failure_auroc" not in found  # nothing failed
    for name in ("nll", "brier", "ece", "ece_floor", "total", "epistemic", "aurc", "nll_se", "accuracy_se"):
        assert found[name] == pytest.approx(0, abs=1e-6), name


def test_standard_errors_of_means_are_those_of_the_sample(labelled):
    found = scores(labelled)
    rows = -labelled.log_probs.double().gather(1, labelled.y[:, None])[:, 0]
    assert found["nll_se"] == pytest.approx(float(rows.std()) / math.sqrt(400), rel=0.15)
    share = found["accuracy"]
    assert found["accuracy_se"] == pytest.approx(math.sqrt(share * (1 - share) / 400), rel=0.15)


def test_the_standard_error_of_ece_is_the_slow_bootstraps(labelled):
    slow = bootstrap(ece, labelled.log_probs, labelled.y, generator=torch.Generator().manual_seed(1), replicates=400)
    assert scores(labelled)["ece_se"] == pytest.approx(float(slow.standard_error), rel=0.2)


def test_the_floor_of_ece_is_the_simulated_one(labelled):
    slow = noise_floor(ece, labelled.log_probs, generator=torch.Generator().manual_seed(1), draws=200)
    assert scores(labelled)["ece_floor"] == pytest.approx(float(slow.mean), abs=4 * float(slow.std) / math.sqrt(100))


def test_resampled_means_have_the_mean_and_spread_of_a_mean():
    column = torch.randn(500, 1, dtype=torch.float64)
    means = resampled_means(column, replicates=2000)
    assert_close(means.mean(0), column.mean(0), atol=5e-3, rtol=0)
    assert_close(means.std(0), column.std(0) / math.sqrt(500), rtol=0.1, atol=0)
    assert torch.equal(means, resampled_means(column, replicates=2000))


def test_regression_numbers_are_the_metrics(measured):
    found = scores(measured)
    parts = (measured.means, measured.variances)
    assert found["rmse"] == pytest.approx(float(rmse(measured.mixture.mean, measured.y)), rel=1e-6)
    expected = mixture_nll(*parts, y=measured.y, log_weights=measured.log_weights)
    assert found["nll"] == pytest.approx(float(expected), rel=1e-6)
    cdf = mixture_cdf(*parts, y=measured.y, log_weights=measured.log_weights)
    assert found["coverage95"] == pytest.approx(float(central_coverage(cdf).share))
    assert found["total"] == pytest.approx(found["aleatoric"] + found["epistemic"], rel=1e-5)


def test_one_gaussian_is_its_own_moment_match():
    found = scores(targets(torch.zeros(1, 400, 1), torch.ones(1, 400, 1), torch.randn(400, 1)))
    assert found["gaussian_nll"] == pytest.approx(found["nll"], rel=1e-6)
    assert found["nll"] == pytest.approx(0.5 * math.log(2 * math.pi) + 0.5 * found["rmse"] ** 2, rel=1e-6)
    assert found["sharpness"] == pytest.approx(1)
    assert found["coverage95"] == pytest.approx(0.95, abs=0.04)


def test_members_are_compared_with_each_other():
    log_probs, y = (2 * torch.randn(3, 400, 5)).log_softmax(-1), torch.randint(5, (400,))
    found = scores(classes(log_probs, y))
    assert found["disagreement"] == pytest.approx(float(disagreement(log_probs)))
    assert found["pairwise_kl"] == pytest.approx(float(pairwise_kl(log_probs)), rel=1e-5)
    wrong = (log_probs.argmax(-1) != y).double()
    assert found["member_accuracy"] == pytest.approx(float(1 - wrong.mean()))
    both = torch.stack([wrong[i] * wrong[j] for i in range(3) for j in range(3) if i != j]).mean()
    rate = wrong.mean()
    assert found["error_correlation"] == pytest.approx(float((both - rate**2) / (rate * (1 - rate))), abs=1e-6)


def test_one_member_differs_from_nobody():
    assert "disagreement" not in scores(classes(torch.randn(1, 9, 3), torch.randint(3, (9,))))
    unlabelled = classes(torch.randn(2, 9, 3), torch.full((9,), -1))
    assert unlabelled.disagreement is not None
    assert unlabelled.member_errors is None


def test_numbers_that_are_none_are_no_records():
    assert [r.metric for r in as_records("clean", "test", None, {"a": 1.0, "b": math.nan, "c": math.inf}, 3)] == ["a"]


def test_all_metrics_have_a_direction_or_none_by_intent(labelled, measured):
    floors = {f"{name}_floor" for name in ("ece", "smooth_ece", "adaptive_ece", "classwise_ece", "quantile_error")}
    spread = {"disagreement", "pairwise_kl", "error_correlation", "coverage95", "sharpness"}
    neither = floors | spread | {"prevalence", "confidence", "total", "aleatoric", "epistemic"}
    names = {
        name for found in (scores(labelled), scores(measured), detection_scores(labelled, labelled)) for name in found
    }
    assert {name for name in names if better(name) is None and not name.endswith("_se")} == neither


def test_intervals_and_abstentions_are_scored():
    low, high = torch.tensor([[0.0], [0.0], [3.0]]), torch.tensor([[1.0], [4.0], [5.0]])
    y, accepted = torch.tensor([[0.5], [5.0], [4.0]]), torch.tensor([True, True, False])
    mixture = GaussianMixture(torch.zeros(1, 3, 1), torch.ones(1, 3, 1))
    belief = mixture.with_intervals(torch.stack([low, high], -1)).with_accepted(accepted)
    found = scores(of_batch(belief, Batch(torch.zeros(3, 1), y, torch.arange(3))))
    assert found["interval_coverage"] == pytest.approx(2 / 3)
    assert found["interval_width"] == pytest.approx(7 / 3)
    assert found["selective_coverage"] == pytest.approx(2 / 3)
    assert found["selective_rmse"] == pytest.approx(((0.25 + 25) / 2) ** 0.5)
    classes = CategoricalMixture(torch.eye(3)[None]).with_accepted(accepted)
    found = scores(of_batch(classes, Batch(torch.zeros(3, 1), torch.tensor([0, 2, 1]), torch.arange(3))))
    assert found["selective_coverage"] == pytest.approx(2 / 3)
    assert found["selective_risk"] == pytest.approx(1 / 2)
