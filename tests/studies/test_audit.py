import json
from functools import partial

import numpy as np
import pytest
import torch
from echo import Echo, EchoGaussian, logits_task, moments_task

from levelhead.evaluation import records, rescore
from levelhead.evaluations.shift import Shift
from levelhead.metrics.classification import nll
from levelhead.metrics.diversity import disagreement
from levelhead.studies.audit import audit, is_predictions
from levelhead.studies.environment import software


def some_file(path, rows=30, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(3, rows, 4, generator=generator).softmax(-1).numpy()
    np.savez(path, probs=probs, y=torch.randint(4, (rows,), generator=generator).numpy(), **more)
    return torch.from_numpy(probs)


@pytest.mark.parametrize(
    "make",
    [lambda: (Echo(2), logits_task(members=2)), lambda: (EchoGaussian(), moments_task(members=2))],
    ids=["classes", "targets"],
)
def test_stored_predictions_give_the_same_numbers_to_the_bit(make, tmp_path):
    predictor, task = make()
    before = records(predictor, task, ["clean", "ood", Shift(severities=(1, 3))], keep=tmp_path)
    found = audit(tmp_path / "predictions")
    assert set(found.records) == set(before)
    assert len(found.records) == len(before) > 20
    assert list(found.records) == rescore(tmp_path)
    assert {receipt["scored_as"] for receipt in found.receipts} >= {"test"}


def test_a_file_alone_is_the_test_set(tmp_path):
    probs = some_file(tmp_path / "mine.npz")
    found = audit(tmp_path / "mine.npz")
    named = {record.metric: record.value for record in found.records}
    assert {record[:3] for record in found.records} == {("clean", "test", None)}
    y = torch.from_numpy(np.load(tmp_path / "mine.npz")["y"])
    assert named["nll"] == pytest.approx(float(nll(probs.double().mean(0).log(), y)))
    assert named["disagreement"] == pytest.approx(float(disagreement(probs.log())))
    assert found.environment["levelhead"] == software()["levelhead"]
    json.dumps([found.receipts, found.environment])


def test_several_files_are_shifts_by_name(tmp_path):
    for name in ("clean", "fog-3", "shift-snow-1", "blurred"):
        some_file(tmp_path / f"{name}.npz", seed=len(name))
    some_file(tmp_path / "ood-svhn.npz", rows=20, seed=9)
    found = audit([tmp_path])
    accuracy = {record[:3] for record in found.records if record.metric == "accuracy"}
    expected = {("clean", "test", None), ("shift", "fog", 3), ("shift", "snow", 1), ("shift", "blurred", None)}
    assert accuracy == expected
    assert {record[:3] for record in found.records if record.metric == "disagreement"} == expected
    assert ("ood", "svhn", None, "auroc_total") in {record[:4] for record in found.records}
    everything = audit([tmp_path], suites=["clean(metrics='all')"])
    assert {"augrc", "kernel_ece"} <= {record.metric for record in everything.records}


def test_attacked_rows_are_scored_where_there_are_any(tmp_path):
    for name in ("attack-clean", "attack-pgd"):
        some_file(tmp_path / f"{name}.npz", seed=len(name))
    names = {record[:2] for record in audit(tmp_path).records}
    assert {("attack", "clean"), ("attack", "pgd"), ("attack", "worst")} <= names


def test_samples_have_metrics_of_their_own(tmp_path):
    np.savez(tmp_path / "draws.npz", samples=np.random.default_rng(0).normal(size=(9, 40)), y=np.zeros(40))
    names = {record.metric for record in audit(tmp_path / "draws.npz").records}
    assert {"crps", "energy_score", "rmse", "coverage95"} <= names


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    some_file(tmp_path / "test.npz")
    (tmp_path / "other.csv").write_text("y,mean,std\n1,2,3\n")
    with pytest.raises(ValueError, match="different kinds"):
        audit(tmp_path)
    (tmp_path / "other.csv").rename(tmp_path / "clean.csv")
    with pytest.raises(ValueError, match="another file is 'test'"):
        audit(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no predictions"):
        audit(tmp_path / "empty")


def test_what_is_a_file_of_predictions(tmp_path):
    some_file(tmp_path / "a.npz")
    assert is_predictions(tmp_path / "a.npz")
    assert is_predictions(tmp_path)
    (tmp_path / "predictor.json").write_text("{}")
    assert not is_predictions(tmp_path)
    assert not is_predictions(tmp_path / "predictor.json")
    assert not is_predictions(tmp_path / "absent.npz")


def test_rows_that_do_not_count(tmp_path):
    some_file(tmp_path / "a.npz")
    arrays = dict(np.load(tmp_path / "a.npz"))
    arrays["y"][:5] = 255
    np.savez(tmp_path / "a.npz", **arrays)
    call = partial(audit, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="labels must lie in"):
        call()
    assert {record.num_examples for record in call(void=255).records} == {25}
