"""The protocol as a study: seven methods, one sampler, and what it measures."""

import pytest

from levelhead.cli.main import main
from levelhead.report.evidence import read
from levelhead.samplers.adamw import AdamW
from levelhead.studies import ovadia
from levelhead.studies.grid import plan
from levelhead.studies.ovadia import RECIPES, SCALES, Scale, ovadia_plan, ovadia_study
from levelhead.studies.study import BadStudy
from levelhead.studies.suites import study_suites, suite_of
from levelhead.tasks.stripes import stripes

TINY = Scale(
    "mlp(hidden=(8, ))",
    AdamW(epochs=1, batch_size=16, weight_decay=0.0),
    "shift(shifts=(rotation, translation), severities=(1, 4), limit=20)",
    (("n", 60), ("size", 12)),
)


def test_seven_methods_trained_alike(tmp_path):
    study = ovadia_study("fashion-mini", seeds=(0,))
    cells = plan(study, tmp_path)
    assert [cell.name for cell in cells] == list(RECIPES)
    assert len(RECIPES) == 7
    trained = [getattr(cell.fit, "member", cell.fit).sampler for cell in cells]
    assert set(trained) == {SCALES["fashion-mini"].sampler}
    assert trained[0].weight_decay == 0


@pytest.mark.parametrize("task", SCALES)
def test_the_suites_can_be_read(task):
    study = ovadia_study(task)
    assert study.seeds == (0, 1, 2)
    assert [suite.partition("(")[0] for suite in study.suites] == ["clean", "shift", "ood", "cost"]
    shift = suite_of(study.suites[1])
    assert shift.limit
    if task == "cifar10":
        assert shift.shifts == ()  # the fifteen corruptions of the test set
    else:
        amounts = [spec.severities for spec in shift.shifts]
        assert amounts[0] == tuple(range(15, 181, 15))
        assert amounts[1] == tuple(range(2, 27, 2))
        assert shift.severities is None
    assert study_suites(study.suites, stripes(n=24, size=8))[0] == "clean"


def test_more_recipes_and_other_settings_go_beside_it():
    study = ovadia_study(
        "fashion-mini", recipes=("vat", "plain"), seeds=(4,), changes=(("sampler.epochs", 3),), options=(("seed", 1),)
    )
    assert study.recipes == (*RECIPES, "vat")
    assert study.seeds == (4,)
    assert list(dict(study.changes)) == ["sampler", "sampler.epochs"]
    assert dict(study.options)["seed"] == 1


def test_other_tasks_are_refused_with_what_to_write():
    with pytest.raises(BadStudy, match="fashion-mini, fashion-mnist, cifar10"):
        ovadia_study("uci/yacht")


def test_tasks_without_data_are_left_out(monkeypatch):
    def loaded(name, **options):
        if name == "cifar10":
            raise FileNotFoundError("no folder cifar10")
        return name

    monkeypatch.setattr(ovadia, "load_task", loaded)
    plan = ovadia_plan(None)
    assert [study.task for study in plan.studies] == ["fashion-mnist"]
    assert plan.left_out == {"cifar10": "no folder cifar10"}

    def nothing(name, **options):
        raise FileNotFoundError(name)

    monkeypatch.setattr(ovadia, "load_task", nothing)
    with pytest.raises(BadStudy, match="--data-dir"):
        ovadia_plan(None)


def test_one_command_runs_it_and_writes_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SCALES, "stripes", TINY)
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--suite", "ovadia", "stripes", "--seeds", "1", "--workers", "1", "--root", str(tmp_path)])
    assert not ended.value.code, capsys.readouterr().err
    page = (tmp_path / "stripes" / "report.html").read_text()
    assert "Rotation" in page
    (evidence,) = read(tmp_path)
    assert sorted(contender.text for contender in evidence.done) == sorted(RECIPES)
    assert evidence.shifts == ["rotation", "translation"]
    assert evidence.ood == ["checkers"]


def test_it_stands_alone_among_the_suites(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "fashion-mini", "--suite", "ovadia,clean"])
    assert ended.value.code
    assert "name it alone" in capsys.readouterr().err.replace("\n", " ")
