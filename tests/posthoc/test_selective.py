"""Selective prediction: its promises hold over repeated calibration sets, and what is accepted is what was said."""

import pytest
import torch
from posthoc.covered import targets
from posthoc.small import Table, tabled

from levelhead.conformal.bounds import clopper_pearson_upper
from levelhead.posthoc.lac import LAC
from levelhead.posthoc.selective import Selective, threshold_for_risk
from levelhead.predictor import Ensemble, predict
from levelhead.types import CannotCompose


def classes(seed, rows=4800):
    """Calibrated probabilities of three classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return Table(logits[None]), tabled(y, (800, rows - 800), num_classes=3)


def risk_and_coverage(step, seed):
    table, task = classes(seed)
    belief = predict(step(table, task), task.test)
    wrong = belief.label != task.test.y
    return float(wrong[belief.accepted].double().mean()), float(belief.accepted.double().mean())


def test_the_risk_is_kept_with_the_stated_certainty():
    found = [risk_and_coverage(Selective(risk=0.2, certainty=0.8), seed) for seed in range(60)]
    broken = sum(risk > 0.2 for risk, _ in found)
    assert broken <= 0.2 * 60 + 4 * (0.2 * 0.8 * 60) ** 0.5
    assert all(coverage > 0.1 for _, coverage in found)
    plain = risk_and_coverage(Selective(risk=None, coverage=0.999), 0)
    assert plain[0] > 0.25


def test_the_coverage_is_kept_on_average():
    found = [risk_and_coverage(Selective(risk=None, coverage=0.7), seed)[1] for seed in range(60)]
    mean = sum(found) / 60
    error = (0.7 * 0.3 / 801 / 60) ** 0.5
    assert 0.7 - 4 * error < mean < 0.7 + 1 / 801 + 4 * error


def test_the_threshold_has_its_bound_and_the_next_rows_have_not():
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(500, dtype=torch.float64, generator=generator)
    wrong = torch.rand(500, dtype=torch.float64, generator=generator) < u
    limit, bound = threshold_for_risk(u, wrong, risk=0.2, delta=0.1)
    accepted = u <= limit
    count, errors = int(accepted.sum()), int(wrong[accepted].sum())
    assert bound == pytest.approx(clopper_pearson_upper(errors, count, delta=0.1 / 20))
    assert bound <= 0.2
    more = u <= u.sort().values[count + 24]  # the next of the grid
    assert clopper_pearson_upper(int(wrong[more].sum()), int(more.sum()), delta=0.1 / 20) > 0.2
    ties = threshold_for_risk(torch.zeros(500).double(), wrong, risk=0.9, delta=0.1)
    assert ties[0] == 0.0


def test_where_no_threshold_will_do_everything_is_declined_and_said():
    table, task = classes(0)
    with pytest.warns(UserWarning, match="every row is declined"):
        fitted = Selective(risk=0.001)(table, task)
    assert not predict(fitted, task.test).accepted.any()


@pytest.mark.parametrize("score", ["total", "epistemic"])
def test_other_uncertainties_and_targets(score):
    table, y = targets(0)
    task = tabled(y, (99, 400))
    belief = predict(Selective(risk=None, coverage=0.6, score=score)(table, task), task.test)
    u = getattr(belief, score)()
    assert u[belief.accepted].max() <= u[~belief.accepted].min()
    with pytest.raises(CannotCompose, match=r"coverage=0\.8"):
        Selective()(table, task)


def test_sets_and_abstentions_live_together_and_mixing_drops_them():
    table, task = classes(0)
    for first, second in ((LAC(), Selective(risk=0.2)), (Selective(risk=0.2), LAC())):
        belief = predict(second(first(table, task), task), task.test)
        assert belief.sets is not None
        assert belief.accepted is not None
    assert Ensemble([Selective(risk=0.2)(table, task)] * 2)(task.test.x).accepted is None
    with pytest.raises(CannotCompose, match="leave one"):
        Selective(risk=0.2)(Selective(risk=0.2)(table, task), task)


@pytest.mark.parametrize("wrong", [{"coverage": 0.5}, {"risk": None}, {"risk": 1.5}, {"certainty": 0.0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Selective(**wrong)
