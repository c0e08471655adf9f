"""A detector on a predictor: its score becomes the beliefs' density, and nothing else changes."""

import pytest
import torch
from detectors.plain import float64, plain, plain_task, rows
from posthoc.small import blobs, mlp, trained
from torch.testing import assert_close

from levelhead.detectors.energy import Energy
from levelhead.detectors.knn import KNN
from levelhead.detectors.mahalanobis import Mahalanobis
from levelhead.detectors.react import ReAct
from levelhead.detectors.vim import ViM
from levelhead.evaluation import records
from levelhead.evaluations.ood import OOD
from levelhead.metrics.ranking import auroc
from levelhead.posthoc.ood_detector import Detecting, OODDetector
from levelhead.predictor import Ensemble
from levelhead.storage import load, save
from levelhead.text import parse, to_text
from levelhead.types import CannotCompose

TASK = plain_task()
X = float64(rows(25, 5)[0])
ALL = [Energy(), KNN(k=3), Mahalanobis(), ReAct(), ViM()]


@pytest.mark.parametrize("detector", ALL, ids=lambda d: type(d).__name__)
def test_the_density_is_minus_the_score_and_the_belief_stays(detector):
    point = plain()
    belief = OODDetector(detector)(point, TASK.sealed())(X)
    assert_close(belief.log_density, -detector.fit(point, TASK)(X))
    assert_close(belief.log_probs, point(X).log_probs)


@pytest.mark.parametrize("detector", ALL, ids=lambda d: type(d).__name__)
def test_saved_and_loaded_it_says_the_same(detector, tmp_path):
    task = blobs()
    recipe = parse("mlp(hidden=(6,)) + sgd(epochs=1) + deep_ensemble(size=2) + ood_detector")
    predictor = OODDetector(detector)(recipe.fit(task, 0).inner, task.sealed())
    again = load(save(predictor, tmp_path / "kept"))
    assert isinstance(again, Detecting)
    assert again.detector == detector
    assert torch.equal(again(task.test.x).log_density, predictor(task.test.x).log_density)


def test_the_suite_measures_it_as_density():
    point = plain()
    predictor = OODDetector(KNN(k=3))(point, TASK.sealed())
    found = {r.metric: r.value for r in records(predictor, TASK, (OOD(),))}
    scores = [KNN(k=3).fit(point, TASK)(float64(split.x)) for split in (TASK.test, TASK.ood["noise"])]
    expected = auroc(torch.cat(scores), torch.arange(100) >= 60)
    assert found["auroc_density"] == pytest.approx(float(expected))


def test_it_is_written_in_one_line():
    line = "mlp + ood_detector(detector=knn(k=10))"
    assert to_text(parse(line)) == line
    assert parse("mlp + ood_detector(knn(k=10))") == parse(line)


def test_in_an_ensemble_densities_mix():
    task = blobs()
    members = [OODDetector()(trained(mlp(task, seed=seed), task, steps=5), task.sealed()) for seed in range(2)]
    mixed = Ensemble(members)(task.test.x).log_density
    parts = torch.stack([member(task.test.x).log_density for member in members])
    assert_close(mixed, parts.logsumexp(0) - torch.tensor(2.0).log())


def test_what_it_learned_keeps_its_precision():
    predictor = OODDetector()(plain(), TASK.sealed())
    assert predictor.float().learned[0]["lower"].dtype == torch.float64


def test_one_detector_is_enough():
    predictor = OODDetector()(plain(), TASK.sealed())
    with pytest.raises(CannotCompose, match="one density"):
        OODDetector(KNN())(predictor, TASK.sealed())
