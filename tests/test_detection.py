"""Detection measured: every score of both sides, against counting by hand."""

import pytest
import torch

from levelhead.beliefs import of_batch, read, write
from levelhead.detection import MEASURES, better, detection_scores, measured
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.types import Batch


def beliefs(logits, **detectors):
    y = torch.zeros(logits.shape[1], dtype=torch.long)
    batch = Batch(torch.zeros(len(y), 1), y, torch.arange(len(y)))
    return of_batch(CategoricalMixture(logits), batch, detectors=detectors)


def test_every_uncertainty_that_both_sides_have_is_a_score():
    inside, outside = beliefs(6 * torch.randn(2, 100, 4)), beliefs(0.1 * torch.randn(2, 50, 4))
    found = detection_scores(inside, outside)
    assert {name.rpartition("_")[2] for name in found} == {"prevalence", "confidence", "total", "epistemic"}
    assert found["prevalence"] == pytest.approx(1 / 3)
    assert found["auroc_total"] > 0.9  # the outer beliefs are flat
    assert found["auroc_epistemic"] < 0.1  # and their members agree
    assert detection_scores(inside, inside)["auroc_total"] == 0.5


def test_stored_detectors_are_scores_where_both_sides_have_them(tmp_path):
    inner = beliefs(torch.randn(1, 4, 3), knn=torch.tensor([0.0, 1.0, 2.0, 3.0]), energy=torch.zeros(4))
    outer = beliefs(torch.randn(1, 2, 3), knn=torch.tensor([2.5, 9.0]))
    again = [read(write(some, key, tmp_path)) for some, key in ((inner, "test"), (outer, "ood-far"))]
    found = detection_scores(*again)
    assert found == detection_scores(inner, outer)
    assert found["auroc_knn"] == pytest.approx(7 / 8)
    assert found["fpr95_out_knn"] == 1 / 4  # one inner row at or above the lower outer one
    assert found["fpr95_in_knn"] == 1 / 2  # one outer row at or below the highest inner one
    assert not [name for name in found if name.endswith("energy")]


def test_detectors_see_no_void_sites():
    y = torch.tensor([[0, 255], [1, 0]])
    batch = Batch(torch.zeros(2, 1), y, torch.arange(2))
    kept = of_batch(CategoricalMixture(torch.randn(1, 2, 2, 3)), batch, void=255, detectors={"knn": torch.rand(2, 2)})
    assert len(kept.detectors["knn"]) == len(kept) == 3


def test_real_targets_carry_detectors_too(tmp_path):
    belief = GaussianMixture(torch.randn(1, 5, 1), torch.ones(1, 5, 1))
    batch = Batch(torch.zeros(5, 1), torch.zeros(5, 1), torch.arange(5))
    kept = of_batch(belief, batch, detectors={"knn": torch.arange(5.0)})
    assert read(write(kept, "test", tmp_path)).detectors["knn"].tolist() == [0, 1, 2, 3, 4]


def test_the_two_conventions_of_fpr95_differ():
    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.randn(4000, generator=generator), 2 * torch.randn(4000, generator=generator) + 1
    found = measured(inside, outside)
    # P(a > -2.29) and P(2 a + 1 < 1.645) for a standard normal
    assert found["fpr95_out"] == pytest.approx(0.989, abs=0.01)
    assert found["fpr95_in"] == pytest.approx(0.626, abs=0.03)


def test_a_constant_score_is_chance():
    found = measured(torch.zeros(30), torch.zeros(10))
    assert found == {"auroc": 0.5, "aupr_out": 0.25, "aupr_in": 0.75, "fpr95_out": 1.0, "fpr95_in": 1.0}


def test_monotone_maps_change_nothing():
    inside, outside = torch.randn(50), torch.randn(20) + 1
    assert measured(inside.exp(), outside.exp()) == pytest.approx(measured(inside, outside))


def test_directions_hold_for_scores_of_any_name():
    assert {measure: better(f"{measure}_anything") for measure in MEASURES} == MEASURES
    assert better("prevalence") is None
    assert better("nll") is None
