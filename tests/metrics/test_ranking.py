import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor
from torch.testing import assert_close

from levelhead.metrics.ranking import (
    accuracy_above,
    augrc,
    aupr,
    aurc,
    auroc,
    average_precision,
    excess_aurc,
    fpr95,
    fpr_at_recall,
    risk_at_coverage,
    risk_coverage,
    unsure_if_wrong,
)

# few distinct scores, so that ties abound
scored = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({positive for _, positive in rows}) == 2
)


def columns(rows: list[tuple[int, bool]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([float(s) for s, _ in rows]), torch.tensor([p for _, p in rows])


@given(rows=scored)
def test_auroc_with_ties_is_the_share_of_pairs_won(rows: list[tuple[int, bool]]) -> None:
    score, positive = columns(rows)
    pairs = list(itertools.product(score[positive].tolist(), score[~positive].tolist()))
    won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    assert float(auroc(score, positive)) == pytest.approx(won)
    assert float(auroc(score, positive)) == pytest.approx(roc_auc_score(positive, score))
    assert float(auroc(score, positive) + auroc(-score, positive)) == pytest.approx(1)
    assert_close(auroc(score, positive), auroc(torch.exp(score) - 3, positive))  # monotone maps change nothing


@given(rows=scored)
def test_average_precision_agrees_with_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    score, positive = columns(rows)
    assert float(average_precision(score, positive)) == pytest.approx(average_precision_score(positive, score))
    assert float(aupr(score, positive)) == pytest.approx(average_precision_score(positive, score))
    assert float(aupr(score, positive, positive="id")) == pytest.approx(average_precision_score(~positive, -score))


@given(rows=scored, recall=st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_false_positive_rate_from_the_roc_curve(rows: list[tuple[int, bool]], recall: float) -> None:
    score, positive = columns(rows)
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    assert float(fpr_at_recall(score, positive, recall=recall)) == pytest.approx(fpr[tpr >= recall - 1e-9].min())


def test_the_two_conventions_of_fpr95() -> None:
    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.randn(4000, generator=generator), 1 + 2 * torch.randn(4000, generator=generator)
    score, ood = torch.cat([inside, outside]), torch.arange(8000) >= 4000
    flagged = (inside >= outside.sort().values[200]).double().mean()  # 95 % of the OOD lie at or above
    accepted = (outside <= inside.sort().values[3799]).double().mean()  # 95 % of the others lie at or below
    assert float(fpr95(score, ood)) == pytest.approx(float(flagged))
    assert float(fpr95(score, ood, positive="id")) == pytest.approx(float(accepted))
    assert abs(float(flagged - accepted)) > 0.1


def test_recall_that_rounds_up_is_still_reached() -> None:
    assert 0.07 * 100 > 7  # in float64
    score = torch.cat([torch.arange(100.0), torch.tensor([92.5, 93.5])])  # the 7 highest positives are 93 and above
    assert float(fpr_at_recall(score, torch.arange(102) < 100, recall=0.07)) == 0.5


def test_constant_and_perfect_scores() -> None:
    positive = torch.arange(10) < 3
    constant, perfect = torch.zeros(10), positive.double()
    assert float(auroc(constant, positive)) == 0.5
    assert float(average_precision(constant, positive)) == pytest.approx(0.3)
    assert float(fpr95(constant, positive)) == 1
    assert [float(m(perfect, positive)) for m in (auroc, average_precision, fpr95)] == [1, 1, 0]


def test_infinite_scores_rank() -> None:
    score = torch.tensor([-math.inf, 0.0, math.inf, math.inf])
    positive = torch.tensor([False, False, True, False])
    assert float(auroc(score, positive)) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("metric", [auroc, average_precision, aupr, fpr_at_recall, fpr95])
def test_one_kind_alone_or_nan_is_an_error(metric) -> None:
    with pytest.raises(ValueError, match="both kinds"):
        metric(torch.rand(4), torch.ones(4).bool())
    with pytest.raises(ValueError, match="NaN"):
        metric(torch.tensor([0.0, torch.nan]), torch.tensor([True, False]))


@given(rows=scored)
def test_risk_is_the_mean_over_orders_of_ties(rows: list[tuple[int, bool]]) -> None:
    uncertainty, error = columns(rows[:6])
    risks = []
    for order in itertools.permutations(range(len(error))):
        if (uncertainty[list(order)].diff() >= 0).all():
            ordered = error[list(order)].double()
            risks.append(ordered.cumsum(0) / torch.arange(1, len(error) + 1))
    curve = risk_coverage(uncertainty, error)
    assert_close(curve.risk, torch.stack(risks).mean(0))
    assert_close(aurc(uncertainty, error), torch.stack(risks).mean())


def test_oracle_has_the_closed_form() -> None:
    error = torch.arange(50) % 5 == 0
    n, wrong = 50, 10
    oracle = sum(max(0, i - (n - wrong)) / i for i in range(1, n + 1)) / n
    assert float(aurc(error.double(), error)) == pytest.approx(oracle)
    assert float(excess_aurc(error.double(), error)) == 0
    assert float(aurc(torch.zeros(n), error)) == pytest.approx(wrong / n)  # no information: the mean error
    assert float(excess_aurc(torch.rand(n), error)) >= 0


def test_augrc_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.rand(5000, generator=generator)
    error = torch.rand(5000, generator=generator) < uncertainty
    e = error.double().mean()
    assert float(augrc(uncertainty, error)) == pytest.approx(
        float((1 - auroc(uncertainty, error)) * e * (1 - e) + e**2 / 2), abs=1e-3
    )


def test_risk_at_coverage() -> None:
    error = torch.tensor([False, True, False, False, True])
    uncertainty = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.8])
    assert float(risk_at_coverage(uncertainty, error, coverage=0.6)) == 0
    assert float(risk_at_coverage(uncertainty, error, coverage=0.61)) == pytest.approx(1 / 4)
    assert float(risk_at_coverage(uncertainty, error, coverage=1.0)) == pytest.approx(2 / 5)
    with pytest.raises(ValueError, match="coverage"):
        risk_at_coverage(uncertainty, error, coverage=0.0)
    with pytest.raises(ValueError, match="recall"):
        fpr_at_recall(uncertainty, error, recall=0.0)


def test_accuracy_above_thresholds() -> None:
    log_probs = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]).double().log()
    y = torch.tensor([1, 0, 2, 0])
    curve = accuracy_above(log_probs, y, thresholds=(0.0, 0.45, 0.8, 0.95))
    assert curve.num_rows.tolist() == [4, 3, 1, 0]
    np.testing.assert_allclose(curve.accuracy.numpy(), [0.5, 1 / 3, 1.0, np.nan])
    assert (accuracy_above(log_probs, y).num_rows.diff() <= 0).all()


def test_unsure_if_wrong() -> None:
    log_probs = torch.tensor([[0.5, 0.5, 0.0], [0.95, 0.05, 0.0], [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]).double().log()
    y = torch.tensor([1, 1, 2, 0])  # wrong with confidences 0.5, 0.95 and 0.7, right with 0.4
    assert float(unsure_if_wrong(log_probs, y)) == pytest.approx(2 / 3)
    assert float(unsure_if_wrong(log_probs, y, threshold=0.6)) == pytest.approx(1 / 3)
    assert float(unsure_if_wrong(log_probs, torch.tensor([1, 9, 9, 0]), void=9)) == 1.0
    assert unsure_if_wrong(log_probs, torch.tensor([0, 0, 0, 0])).isnan()
