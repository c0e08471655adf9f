import sys

import pytest
import torch
from echo import Echo, EchoGaussian, logits_task, moments_task

from levelhead.evaluation import evaluate, records, rescore
from levelhead.evaluations.clean import Clean
from levelhead.evaluations.shift import Shift
from levelhead.predictor import Ensemble
from levelhead.types import MissingExtra


def test_ten_metrics_cost_one_pass():
    task, predictor = logits_task(), Echo()
    records(predictor, task, ("clean", "ood"), batch_size=25)
    assert [rows for rows, _ in predictor.calls] == [25, 25, 10, 25, 5]  # test once, then the set outside


def test_the_table_has_the_records_columns():
    table = evaluate(Echo(), logits_task(), ("clean", "ood"))
    assert list(table.columns) == ["evaluation", "data", "severity", "metric", "value", "num_examples"]
    assert table["severity"].isna().all()
    assert len(table) == len(records(Echo(), logits_task(), ("clean", "ood")))


def test_without_pandas_the_table_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="study"):
        evaluate(Echo(), logits_task(), ("clean",))


@pytest.mark.parametrize(
    "predictor, task",
    [(Echo(members=2, density=True), logits_task(members=2)), (EchoGaussian(), moments_task(members=3))],
    ids=["classes", "targets"],
)
def test_rescoring_equals_scoring(predictor, task, tmp_path):
    suites = ("clean", Shift(severities=(1, 4)), "ood")
    scored = records(predictor, task, suites, keep=tmp_path)
    assert sorted(rescore(tmp_path, suites), key=str) == sorted(scored, key=str)
    assert {record.evaluation for record in scored} >= {"clean", "shift"}


def test_files_are_named_by_their_keys(tmp_path):
    records(Echo(), logits_task(), ("clean", Shift(severities=(2,)), "ood"), keep=tmp_path)
    names = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert names >= {"test.safetensors", "ood-outside.safetensors", "shift-feature_noise-2.safetensors"}


def test_noise_is_set_for_the_duration_and_put_back():
    member, other = Echo(noise=7), Echo(noise=None)
    records(Ensemble([member, other]), logits_task(), ("clean",), noise=3)
    assert {noise for _, noise in member.calls + other.calls} == {3}
    assert (member.noise, other.noise) == (7, None)


def test_noise_is_put_back_after_an_error():
    predictor = Echo(members=2, noise=7)
    with pytest.raises(Exception, match=r"."):  # three logits cannot be shared by two members
        records(predictor, logits_task(), ("clean",))
    assert predictor.noise == 7


def test_a_predictor_in_training_mode_is_evaluated_and_left_in_it():
    modes = []

    class Watched(Echo):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    predictor = Ensemble([Watched()])
    predictor.train()
    records(predictor, logits_task(), ("clean",))
    assert not any(modes)
    assert all(module.training for module in predictor.modules())


def test_predictors_of_other_precision_get_their_inputs():
    low = records(Echo().double(), logits_task(), ("clean",))
    assert {r.metric: r.value for r in low}["accuracy"] == {
        r.metric: r.value for r in records(Echo(), logits_task(), ("clean",))
    }["accuracy"]


def test_an_unknown_suite_is_named():
    with pytest.raises(ValueError, match="clean"):
        records(Echo(), logits_task(), ("clear",))


def test_two_suites_of_the_same_thing_are_an_error():
    with pytest.raises(ValueError, match="once"):
        records(Echo(), logits_task(), ("clean", Clean()))


def test_the_default_suites_run_on_everything():
    found = records(Echo(), logits_task())
    assert {record.evaluation for record in found} == {"clean", "shift", "ood", "cost"}
    assert torch.tensor([record.value for record in found]).isfinite().all()
