"""Ensembles of finished runs: honest, reproducible, saved, and refused where runs do not belong together."""

import json

import pytest
import torch
from contracts.styles import regression
from studies.tiny import SMALL, tiny
from torch.testing import assert_close

from levelhead.cli.main import main
from levelhead.predictor import predict
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.selection import greedy_select
from levelhead.storage import load, save
from levelhead.studies.grid import plan
from levelhead.studies.select import select
from levelhead.studies.study import Study
from levelhead.studies.work import Orders, work

RECIPES = tuple(Recipe(backbone=SMALL, sampler=SGD(epochs=3, batch_size=16, lr=lr)) for lr in (0.03, 0.1, 0.3))


def ran(root, task, seeds=(0, 1)):
    cells = plan(Study(task, RECIPES, seeds=seeds), root)
    for cell in cells:
        assert work(cell, Orders(suites=())).state == "done"
    return cells


def test_it_is_the_greedy_choice_by_the_validation_rows(tmp_path):
    task = tiny()
    cells = ran(tmp_path, task)
    found = select(tmp_path, task=task, k=3)
    predictors = [load(folder / "predictor") for folder in found.considered]
    assert set(found.considered) == {cell.folder for cell in cells}
    log_probs = torch.stack([predict(p, task.val).log_probs for p in predictors])
    expected = greedy_select(log_probs, task.val.y, 3)
    assert found.selection.indices == expected.indices
    assert found.folders == tuple(found.considered[j] for j in expected.members)
    nll = -float(predict(found.predictor, task.val).log_prob(task.val.y).mean())
    assert nll == pytest.approx(found.selection.history[-1], abs=1e-5)
    saved = load(save(found.predictor, tmp_path / "ensemble"))
    assert_close(saved(task.test.x / 255).log_probs, found.predictor(task.test.x / 255).log_probs)


def test_predictions_are_made_once_and_kept_apart_from_those_that_are_scored(tmp_path, monkeypatch):
    task = tiny()
    ran(tmp_path, task, seeds=(0,))
    first = select(tmp_path, task=task)
    for folder in first.considered:
        assert (folder / "selection" / "predictions" / "val.safetensors").exists()
        assert not (folder / "predictions" / "val.safetensors").exists()
    monkeypatch.setattr("levelhead.studies.select.Passes", None)  # it would fail if it were asked
    assert select(tmp_path, task=task).selection == first.selection


def test_real_targets_are_selected_by_their_density(tmp_path):
    task = regression()
    ran(tmp_path, task, seeds=(0,))
    found = select(tmp_path, task=task, k=2)
    nll = -float(predict(found.predictor, task.val).log_prob(task.val.y).mean())
    assert nll == pytest.approx(found.selection.history[-1], abs=1e-4)
    with pytest.raises(ValueError, match="selected by 'nll'"):
        select(tmp_path, task=task, objective="accuracy")


def test_runs_on_other_data_are_refused(tmp_path):
    ran(tmp_path, tiny(), seeds=(0,))
    with pytest.raises(ValueError, match="other data"):
        select(tmp_path, task=regression())


def test_no_finished_runs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished runs"):
        select(tmp_path, task=tiny())


def test_the_command_line_saves_and_tells(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for lr in ("0.05", "0.2"):
        with pytest.raises(SystemExit):
            main(["fit", f"sgd(epochs=1, lr={lr})", "stripes", "-b", "mlp", "--json", "--suite", "clean"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["select", "runs", "--k", "2", "--out", "mine", "--json"])
    assert end.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert told["considered"] == 2
    assert sum(member["weight"] for member in told["members"]) == pytest.approx(1)
    assert json.loads((tmp_path / "mine" / "selection.json").read_text())["split"] == "val"
    assert len(load(tmp_path / "mine").members) == len(told["members"])
