import dataclasses
import json

import pytest
import torch
from studies.tiny import SMALL, SUITES, FailsOnAllRows, finished, tiny

from levelhead.hyper_deep import HyperDeepEnsemble
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.shelf import FOLDER, Shelf, progress
from levelhead.spaces.log_uniform import LogUniform
from levelhead.storage import load
from levelhead.studies import store
from levelhead.studies.grid import plan
from levelhead.studies.study import Study
from levelhead.studies.work import Orders, measure, work
from levelhead.tasks.stripes import stripes
from levelhead.training import Checkpoint

ORDERS = Orders(suites=("clean",))
FILES = ("environment.json", "recipe.json", "records.parquet", "status.json", "train.jsonl")
QUICK = Recipe(backbone=SMALL, sampler=SGD(epochs=2))


def one(root, recipe=QUICK, task=None):
    return plan(Study(task or tiny(), (recipe,), seeds=(0,)), root)[0]


def test_a_cell_leaves_everything_in_its_folder(tmp_path):
    cell = one(tmp_path)
    assert work(cell, ORDERS).state == "done"
    found = {path.name for path in cell.folder.iterdir()}
    assert found == {".lock", "predictions", "predictor", *FILES}
    recipe = store.read_json(cell.folder / "recipe.json")
    assert recipe["text"] == "sgd(epochs=2)"
    assert recipe["classes"] == ["0 degrees", "60 degrees", "120 degrees"]
    assert store.read_json(cell.folder / "environment.json")["task"]["splits"]["train"]["size"] == 48
    rows = store.read_records(cell.folder)
    assert {row["digest"] for row in rows} == {cell.identity}
    assert store.read_status(cell.folder).suites == ("clean",)
    x = next(iter(tiny().test.ordered(8))).x
    kept = load(cell.folder / "predictor")(x).log_probs
    assert torch.equal(kept, QUICK.fit(tiny(), 0)(x).log_probs)


def test_a_finished_cell_is_left_alone(tmp_path):
    cell = one(tmp_path)
    work(cell, ORDERS)
    before = finished(tmp_path)
    assert work(cell, ORDERS).state == "skipped"
    assert finished(tmp_path) == before


def test_a_further_suite_needs_no_training(tmp_path):
    cell = one(tmp_path)
    work(cell, ORDERS)
    log = (cell.folder / "train.jsonl").read_bytes()
    assert cell.missing(("clean", "ood")) == ("ood",)
    assert work(cell, Orders(suites=("clean", "ood"))).state == "done"
    assert (cell.folder / "train.jsonl").read_bytes() == log
    assert {row["evaluation"] for row in store.read_records(cell.folder)} == {"clean", "ood"}
    assert cell.missing(("clean", "ood")) == ()


def test_training_time_is_among_the_costs(tmp_path):
    cell = one(tmp_path)
    work(cell, Orders(suites=("cost",)))
    rows = {row["metric"]: row for row in store.read_records(cell.folder)}
    assert rows["train_seconds"]["data"] == "train"
    assert rows["train_seconds"]["value"] == store.read_status(cell.folder).seconds > 0


def test_a_failure_keeps_its_traceback_and_is_tried_again(tmp_path):
    cell = one(tmp_path, FailsOnAllRows())
    (outcome, again) = (work(cell, ORDERS), work(cell, ORDERS))
    assert outcome == again
    assert (outcome.state, outcome.error) == ("failed", "RuntimeError: cannot fit 48 rows")
    status = store.read_status(cell.folder)
    assert "in fit" in status.traceback
    assert not (cell.folder / "records.parquet").exists()


def test_other_data_under_the_same_name_is_fitted_anew(tmp_path):
    cell = one(tmp_path)
    work(cell, ORDERS)
    changed = dataclasses.replace(cell, content="other")
    assert changed.missing(("clean",)) is None
    assert work(changed, ORDERS).state == "done"
    assert len((cell.folder / "train.jsonl").read_text().splitlines()) == 2


def test_members_of_an_ensemble_are_not_kept_twice(tmp_path):
    cell = one(tmp_path, DeepEnsemble(member=QUICK, size=2))
    work(cell, ORDERS)
    assert [str(path.relative_to(cell.folder)) for path in cell.folder.rglob("predictor")] == ["predictor"]
    assert (cell.folder / "member-1" / "train.jsonl").exists()


def test_a_cell_in_other_hands_is_busy(tmp_path):
    cell = one(tmp_path)
    with store.held(cell.folder):
        assert work(cell, ORDERS).state == "busy"
    assert not (cell.folder / "status.json").exists()


def test_a_killed_fit_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    cell = one(tmp_path, Recipe(backbone=SMALL, sampler=SGD(epochs=4, batch_size=16)))
    whole = one(tmp_path / "whole", cell.fit)
    work(whole, ORDERS)
    steps = 0
    step = SGD.step

    def interrupted(self, state, objective, batch):
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        return step(self, state, objective, batch)

    monkeypatch.setattr(Checkpoint, "save_if_due", Checkpoint.save)  # after every step
    monkeypatch.setattr(SGD, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(cell, ORDERS)
    assert store.read_status(cell.folder).state == "running"
    assert not store.is_held(cell.folder)
    monkeypatch.setattr(SGD, "step", lambda self, *rest: (_count(seen), step(self, *rest))[1])
    seen: list[int] = []
    assert work(cell, ORDERS).state == "done"
    assert len(seen) == 12 - 7
    assert _values(cell) == _values(whole)


def _count(seen):
    seen.append(1)


def _values(cell):
    return {(row["data"], row["metric"]): row["value"] for row in store.read_records(cell.folder)}


def test_measuring_again_wants_the_same_data(tmp_path):
    cell = one(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished predictor"):
        measure(cell.folder, tiny(), suites=("ood",))
    work(cell, ORDERS)
    measure(cell.folder, tiny(), suites=SUITES)
    assert store.read_status(cell.folder).suites == SUITES
    other = dataclasses.replace(tiny(), test=tiny().test.take(9))
    with pytest.raises(ValueError, match="other data"):
        measure(cell.folder, other, suites=SUITES)
    recipe = json.loads((cell.folder / "recipe.json").read_text())
    assert recipe["content"] == tiny().digest


def test_a_cell_killed_while_it_is_measured_goes_on_there(tmp_path, monkeypatch):
    shifts = "shift(shifts=(rotation, gamma), severities=(1,))"
    orders, task = Orders(suites=("clean", shifts)), stripes(1200)  # 600 test rows: three blocks
    whole = one(tmp_path / "whole", task=task)
    assert work(whole, orders).state == "done"
    cell = one(tmp_path / "killed", task=task)
    put, numbers = Shelf.put, []

    def dies(shelf, number, beliefs):
        if number == 2:
            raise KeyboardInterrupt
        put(shelf, number, beliefs)

    monkeypatch.setattr(Shelf, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        work(cell, orders)
    assert store.read_status(cell.folder).state == "running"
    assert progress(cell.folder) == ("shift", 2, 3)
    log = (cell.folder / "train.jsonl").read_bytes()
    monkeypatch.setattr(
        Shelf, "put", lambda shelf, number, beliefs: (numbers.append(number), put(shelf, number, beliefs))
    )
    assert work(cell, orders).state == "done"
    assert numbers == [2]
    assert (cell.folder / "train.jsonl").read_bytes() == log
    assert not (cell.folder / FOLDER).exists()
    assert store.read_records(cell.folder) == store.read_records(whole.folder)


def test_searches_of_a_task_share_their_trials_whatever_their_size(tmp_path, monkeypatch):
    space = (LogUniform("sampler.lr", 0.01, 0.3),)
    few = HyperDeepEnsemble(member=QUICK, space=space, size=2, candidates=2, stratify=False)
    many = dataclasses.replace(few, candidates=4)
    assert work(one(tmp_path, few), ORDERS).state == "done"
    fits = []
    whole = Recipe.fit
    monkeypatch.setattr(Recipe, "fit", lambda self, *args, **kwargs: fits.append(1) or whole(self, *args, **kwargs))
    cell = one(tmp_path, many)
    assert work(cell, ORDERS).state == "done"
    assert len(fits) == 2
    assert len(list((tmp_path / "stripes" / "trials").iterdir())) == 4
    assert store.read_json(cell.folder / "search.json")["trainings"] == 4
    assert len(store.find_cells(tmp_path)) == 2
