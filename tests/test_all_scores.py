import math
from dataclasses import replace

import pytest
import torch
from echo import Echo, EchoGaussian, logits_task, moments_task

from levelhead.all_scores import all_scores, member_scores, more_class_scores, sample_scores
from levelhead.beliefs import ClassBeliefs, of_batch
from levelhead.evaluation import records
from levelhead.evaluations.clean import Clean
from levelhead.metrics.calibration_variants import mce, top_k_ece
from levelhead.metrics.classification import brier, nll
from levelhead.metrics.diversity import pairwise_kl
from levelhead.metrics.regression import mae, rmse
from levelhead.metrics.samples import sample_crps
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.scores import better, scores
from levelhead.text import parse_part, part_text
from levelhead.types import Batch


def classes(logits, y):
    return of_batch(CategoricalMixture(logits), Batch(torch.zeros(len(y), 1), y, torch.arange(len(y))))


@pytest.fixture
def labelled() -> ClassBeliefs:
    return classes(2 * torch.randn(2, 400, 7), torch.randint(7, (400,)))


def test_they_are_the_metrics(labelled):
    found = all_scores(labelled)
    assert scores(labelled).items() <= found.items()
    assert found["mce"] == pytest.approx(float(mce(labelled.log_probs, labelled.y, min_count=30)))
    assert found["top5_ece"] == pytest.approx(float(top_k_ece(labelled.log_probs, labelled.y, k=5)))
    terms = [found[f"brier_{name}"] for name in ("uncertainty", "reliability", "within_variance")]
    terms += [-found["brier_resolution"], -found["brier_within_covariance"]]
    assert sum(terms) == pytest.approx(float(brier(labelled.log_probs, labelled.y)))
    assert found["rejection_ratio"] == pytest.approx(2 * found["failure_auroc"] - 1)
    assert found["share_above50"] >= found["share_above70"] >= found["share_above90"]
    assert all(math.isfinite(value) for value in found.values())


def test_what_is_undefined_is_absent():
    y = torch.randint(2, (50,))
    found = more_class_scores(classes(100 * torch.nn.functional.one_hot(y, 2).float()[None], y))
    assert "relative_aulc" not in found
    assert "calibration_slope" not in found
    assert "top5_ece" not in found
    assert found["positive_ece"] == pytest.approx(0, abs=1e-6)
    assert found["spiegelhalter_p"] == 1


def test_sets_of_the_worst_class():
    y = torch.tensor([0, 0, 1, 1])
    belief = CategoricalMixture(torch.randn(1, 4, 3)).with_sets(
        torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]]).bool()
    )
    found = more_class_scores(of_batch(belief, Batch(torch.zeros(4, 1), y, torch.arange(4))))
    assert (found["set_empty_share"], found["set_worst_class_coverage"]) == (0.25, 0.5)


def test_members_beside_their_mixture(labelled):
    members = torch.randn(3, 60, 4).log_softmax(-1)
    y = torch.randint(4, (60,))
    found = member_scores(members, y)
    assert found["member_nll"] == pytest.approx(sum(float(nll(one, y)) for one in members) / 3)
    assert found["pairwise_kl"] == pytest.approx(float(pairwise_kl(members)))
    assert member_scores(members[:1], y).keys() == {"member_accuracy", "member_nll"}


def test_draws_are_scored_without_a_density():
    draws, y = torch.randn(40, 500, 2), torch.randn(500, 2)
    found = sample_scores(draws, y)
    assert found["rmse"] == pytest.approx(float(rmse(draws.mean(0), y)), rel=1e-6)
    assert found["crps"] == pytest.approx(float(sample_crps(draws, y)))
    assert found["coverage95"] == pytest.approx(0.9, abs=0.05)  # 40 draws reach less far than 95 %
    one = sample_scores(draws[:1], y)
    assert one.keys() == {"rmse", "mae", "coverage95", "width95"}
    assert one["mae"] == pytest.approx(float(mae(draws[0], y)))


def test_the_clean_suite_measures_them_when_asked():
    spec = parse_part("clean(metrics='all')", ("evaluations",))
    assert spec == Clean(metrics="all")
    assert parse_part(part_text(spec), ("evaluations",)) == spec
    usual = {r.metric for r in records(Echo(2), logits_task(members=2), ["clean"])}
    found = {r.metric for r in records(Echo(2), logits_task(members=2), [spec])}
    assert usual < found
    assert {"kernel_ece", "augrc", "pavpu"} <= found - usual
    numbers = {r.metric: r.value for r in records(Echo(2), logits_task(members=2, n=250), [spec])}
    task = logits_task(members=2, n=250)
    members = torch.stack(task.test.x.split(3, dim=-1)).log_softmax(-1)
    for name, value in member_scores(members, task.test.y).items():
        assert numbers[name] == pytest.approx(value, rel=1e-6), name
    x = task.test.x.clone()
    x[220] = torch.tensor([3e38, -3e38, -3e38, -3e38, 3e38, -3e38])  # each excludes what the other says: KL is infinite
    found = {r.metric for r in records(Echo(2), replace(task, test=replace(task.test, x=x)), [spec])}
    assert "pairwise_js" in found
    assert "pairwise_kl" not in found
    assert "disagreement" not in {r.metric for r in records(Echo(1), logits_task(), [spec])}
    targets = {r.metric for r in records(EchoGaussian(), moments_task(), [spec])}
    assert {"ence", "ence_floor", "ause", "interval_score95", "pit_p"} <= targets
    with pytest.raises(ValueError, match="metrics"):
        Clean(metrics="some")


def test_directions_are_known_or_meant_to_be_none():
    """p values are best anywhere above their level, slopes at 1, intercepts at 0; shares and spreads are no merit."""
    y = torch.randint(2, (90,))
    mixture = GaussianMixture(torch.randn(2, 90, 1), torch.rand(2, 90, 1) + 0.1)
    targets = of_batch(mixture, Batch(torch.zeros(90, 1), torch.randn(90, 1), torch.arange(90)))
    names = {
        *more_class_scores(classes(torch.randn(1, 90, 2), y)),
        *more_class_scores(classes(torch.randn(1, 90, 9), y)),
        *all_scores(targets).keys() - scores(targets).keys(),
    }
    neither = {name for name in names if name.endswith("_p") or name.startswith("share_above")}
    neither |= {"calibration_slope", "calibration_intercept", "brier_uncertainty", "ence_floor"}
    neither |= {"brier_within_variance", "brier_within_covariance", "spread_variation", "width95", "overconfidence"}
    assert {name for name in names if better(name) is None} == neither
