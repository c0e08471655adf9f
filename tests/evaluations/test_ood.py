import dataclasses

import pytest
import torch
from detectors.plain import plain, plain_task
from echo import Echo, EchoGaussian, logits_task, moments_task
from torch import nn

from levelhead.beliefs import read
from levelhead.catalogue import names
from levelhead.detectors._fit import Detector
from levelhead.detectors.knn import KNN
from levelhead.detectors.mahalanobis import Mahalanobis
from levelhead.evaluation import records, rescore
from levelhead.evaluations.ood import OOD
from levelhead.likelihood import Categorical
from levelhead.metrics.ranking import auroc
from levelhead.text import parse_part, part_text


def test_detection_is_of_the_outer_rows():
    task = logits_task()
    found = {record.metric: record for record in records(Echo(), task, (OOD(),))}
    inner, outer = (split.x.softmax(-1).amax(-1) for split in (task.test, task.ood["outside"]))
    expected = auroc(-torch.cat([inner, outer]), torch.arange(90) >= 60)
    assert found["auroc_confidence"].value == pytest.approx(
        float(expected), abs=2e-3
    )  # equal in log space but for ties
    assert found["auroc_confidence"].num_examples == 90
    assert found["confidence"].value == pytest.approx(float(outer.mean()), rel=1e-5)
    assert found["confidence"].num_examples == 30


def test_one_member_knows_nothing_of_disagreement():
    found = {record.metric: record.value for record in records(Echo(), logits_task(), (OOD(),))}
    assert found["auroc_epistemic"] == 0.5


def test_the_density_is_a_score_where_there_is_one():
    with_density = {record.metric for record in records(Echo(density=True), logits_task(), (OOD(),))}
    without = {record.metric for record in records(Echo(), logits_task(), (OOD(),))}
    assert with_density - without == {
        "auroc_density",
        "aupr_in_density",
        "aupr_out_density",
        "fpr95_in_density",
        "fpr95_out_density",
    }


def test_labels_of_the_outer_rows_are_not_read():
    task = logits_task()
    voided = dataclasses.replace(task, likelihood=Categorical(3, void=-1))  # the label that outer rows carry
    assert records(Echo(), voided, (OOD(),)) == records(Echo(), task, (OOD(),))


def test_a_task_without_outer_sets_gives_no_records():
    assert records(Echo(), dataclasses.replace(logits_task(), ood={}), (OOD(),)) == []


def stored(predictor, task, folder, *suites):
    return {(r.data, r.metric): r.value for r in records(predictor, task, suites, keep=folder)}


def test_detectors_are_measured_and_stored_with_the_beliefs(tmp_path):
    task, predictor = plain_task(), plain()
    found = stored(predictor, task, tmp_path, OOD((KNN(k=3), Mahalanobis())))
    scores = [Mahalanobis().fit(predictor, task)(split.x.double()).float() for split in (task.test, task.ood["noise"])]
    expected = auroc(torch.cat(scores), torch.arange(100) >= 60)
    assert found["noise", "auroc_mahalanobis"] == pytest.approx(float(expected))
    assert found["noise", "prevalence"] == pytest.approx(0.4)
    assert {(r.data, r.metric): r.value for r in rescore(tmp_path, ("ood",))} == found


def test_a_suite_before_it_may_have_asked_for_the_same_rows(tmp_path):
    task, predictor = plain_task(), plain()
    together = stored(predictor, task, tmp_path / "both", "clean", OOD((KNN(k=3),)), "cost")
    alone = stored(predictor, task, tmp_path / "one", OOD((KNN(k=3),)))
    assert alone.items() <= together.items()
    assert "knn" in read(tmp_path / "both" / "predictions" / "test.safetensors").detectors


def test_all_is_every_detector_that_the_predictor_can_take():
    task = plain_task()
    everything = set(OOD("all").scorers(plain(), task))
    assert everything == set(names("detectors"))
    affine = everything - set(OOD("all").scorers(plain(head=nn.Sequential(nn.Linear(5, 3), nn.Tanh())), task))
    assert affine == {"vim"}
    beliefs = set(OOD("all").scorers(Echo(), logits_task()))
    assert beliefs == {"entropy", "max_probability", "mutual_information", "odin"}


def test_all_understands_regression():
    task = moments_task()
    assert OOD("all").scorers(EchoGaussian(), task) == {}


def test_a_detector_of_somebody_else_is_named_after_its_class():
    found = {r.metric for r in records(plain(), plain_task(), (OOD((FirstFeature(),)),))}
    assert "auroc_first_feature" in found


@dataclasses.dataclass(frozen=True)
class FirstFeature(Detector):
    def score(self, look, learned):
        return look.x[:, 0]


def test_it_is_written_in_one_line():
    suite = parse_part("ood(detectors=(mahalanobis, knn(k=10)))", ("evaluations",))
    assert suite == OOD((Mahalanobis(), KNN(k=10)))
    assert parse_part(part_text(suite), ("evaluations",)) == suite
    assert parse_part("ood(detectors='all')", ("evaluations",)) == OOD("all")


@pytest.mark.parametrize("detectors, word", [("most", "most"), ((KNN(), KNN(k=3)), "knn")])
def test_settings_that_mean_nothing_are_refused(detectors, word):
    with pytest.raises(ValueError, match=word):
        OOD(detectors)
