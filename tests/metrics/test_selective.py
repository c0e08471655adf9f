import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from levelhead.metrics.ranking import aurc, auroc
from levelhead.metrics.selective import (
    coverage_at_risk,
    oracle_aurc,
    rejection_ratio,
    relative_aulc,
    selective_accuracy,
)

marked = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({wrong for _, wrong in rows}) == 2
)


def columns(rows):
    return torch.tensor([float(u) for u, _ in rows]), torch.tensor([wrong for _, wrong in rows])


@given(rows=marked)
def test_identities(rows):
    uncertainty, error = columns(rows)
    assert float(oracle_aurc(error)) == pytest.approx(float(aurc(error.double(), error)), abs=1e-12)
    # exactly, ties included, and not only in the limit
    assert float(rejection_ratio(uncertainty, error)) == pytest.approx(2 * float(auroc(uncertainty, error)) - 1)
    assert float(relative_aulc(error.double(), error)) == pytest.approx(1)
    assert float(relative_aulc(torch.zeros(len(error)), error)) == pytest.approx(0, abs=1e-12)
    assert float(rejection_ratio(error.double(), error.double())) == pytest.approx(1)


def test_oracle_has_its_limit():
    error = torch.arange(20_000) % 4 == 0
    assert float(oracle_aurc(error)) == pytest.approx(0.25 + 0.75 * math.log(0.75), abs=1e-4)


def test_rejection_ratio_of_any_loss():
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(200, generator=generator)
    assert float(rejection_ratio(loss, loss)) == pytest.approx(1)
    assert float(rejection_ratio(-loss, loss)) == pytest.approx(-1)
    assert 0.2 < float(rejection_ratio(loss + torch.rand(200, generator=generator), loss)) < 0.9


@given(rows=marked, risk=st.sampled_from([0.0, 0.1, 0.3, 1.0]), delta=st.sampled_from([None, 0.05, 0.3]))
def test_coverage_at_risk_against_a_search(rows, risk, delta):
    uncertainty, error = columns(rows)
    best = (0.0, -math.inf)
    for threshold in sorted(set(uncertainty.tolist())):
        kept = error[uncertainty <= threshold]
        n, k = len(kept), int(kept.sum())
        bound = k / n
        if delta is not None:
            bound = 1.0 if k == n else float(beta.ppf(1 - delta, k + 1, n - k))
        if bound <= risk + 1e-12:
            best = (n / len(error), threshold)
    found = coverage_at_risk(uncertainty, error, risk=risk, delta=delta)
    assert (float(found.coverage), float(found.threshold)) == pytest.approx(best)
    kept = error[uncertainty <= found.threshold]
    assert found.risk.isnan() if len(kept) == 0 else float(found.risk) == pytest.approx(float(kept.double().mean()))


def test_selective_accuracy_at_a_coverage():
    error = torch.tensor([False, True, False, True])
    uncertainty = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert float(selective_accuracy(uncertainty, error, coverage=0.75)) == pytest.approx(2 / 3)


def test_one_kind_alone_has_no_order():
    u, right = torch.rand(4), torch.zeros(4).bool()
    for call in (relative_aulc, rejection_ratio):
        with pytest.raises(ValueError, match="error"):
            call(u, right)
    for wrong in ({"risk": 1.5}, {"risk": 0.1, "delta": 0.0}):
        with pytest.raises(ValueError, match=r"risk|delta"):
            coverage_at_risk(u, right, **wrong)
    with pytest.raises(ValueError, match="at least one"):
        oracle_aurc(torch.empty(0).bool())
