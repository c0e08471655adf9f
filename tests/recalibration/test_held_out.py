"""Held-out rows: flat, without void sites, and fresh where a promise needs that."""

import dataclasses

import pytest
import torch
from posthoc.small import Table, tabled

from levelhead.posthoc.isotonic import Isotonic
from levelhead.posthoc.temperature import Temperature
from levelhead.posthoc.vector_scaling import VectorScaling
from levelhead.predictor import Ensemble, predict
from levelhead.recalibration.held_out import all_right, class_rows, fresh_rows, undecided
from levelhead.tasks.split import Split
from levelhead.types import CannotCompose

LOGITS = torch.randn(2, 12, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def pixels():
    """Maps of 3 x 4 sites; the first site of each is void."""
    y = torch.randint(5, (12, 3, 4), generator=torch.Generator().manual_seed(1))
    y[:, 0, 0] = 255
    return Table(LOGITS), tabled(y, (8, 4), num_classes=5, void=255)


def test_sites_are_rows_and_void_ones_are_gone():
    table, task = pixels()
    rows = class_rows(table, task, step="step")
    y = task.calibration.y
    assert rows.log_probs.shape == (8 * 11, 5)
    assert torch.equal(rows.y, y[y != 255])
    expected = predict(table, task.calibration).log_probs[y != 255]
    torch.testing.assert_close(rows.log_probs, expected)
    nothing = Split("calibration", task.calibration.x, torch.full_like(y, 255))
    with pytest.raises(ValueError, match="every calibration label is void"):
        class_rows(table, dataclasses.replace(task, calibration=nothing), step="step")


@pytest.mark.parametrize("step", [VectorScaling(), Isotonic(), Isotonic(target="top")], ids=repr)
def test_maps_calibrate_pixels(step):
    table, task = pixels()
    fitted = step(table, task)
    belief = predict(fitted, task.test)
    assert belief.logits.shape == (2, 4, 3, 4, 5)
    pooled = predict(table, task.test).log_probs
    torch.testing.assert_close(belief.log_probs[1, 2, 3], fitted.mapped(pooled[1, 2, 3][None])[0])


def test_soft_labels_stay_soft_and_have_a_mode():
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6], [0.3, 0.3, 0.4]])
    rows = class_rows(Table(torch.zeros(1, 3, 3)), tabled(soft, (2, 1), num_classes=3), step="step")
    torch.testing.assert_close(rows.y, soft[:2].double())
    assert rows.labels.tolist() == [0, 2]
    assert not all_right(rows)  # two rows are too few to wonder


def test_excluded_classes_stay_finite():
    logits = torch.tensor([[[0.0, -torch.inf, 1.0]]]).expand(1, 4, 3)
    rows = class_rows(Table(logits), tabled(torch.tensor([0, 2, 0, 2]), (3, 1), num_classes=3), step="step")
    assert rows.log_probs.isfinite().all()


def test_what_was_fitted_anywhere_inside_is_found():
    y = torch.arange(20) % 3
    table, task = Table(torch.randn(1, 20, 3)), tabled(y, (15, 5), num_classes=3)
    assert fresh_rows(table, task, step="step") == task.calibration.digest
    deep = Ensemble([table, Ensemble([Temperature()(table, task)])])
    with pytest.raises(CannotCompose, match="Tempered was fitted on these"):
        fresh_rows(deep, task, step="step")


def test_decisions_hold_for_the_beliefs_they_were_made_of():
    belief = Table(torch.randn(1, 4, 3))(torch.arange(4.0)[:, None])
    assert undecided(belief, step="step") is belief
    for decided in (belief.with_sets(torch.ones(4, 3).bool()), belief.with_accepted(torch.ones(4).bool())):
        with pytest.raises(CannotCompose, match="last"):
            undecided(decided, step="step")
