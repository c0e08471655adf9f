"""Means and standard errors of the page are those of the tables, and every recipe keeps its own name."""

import math
import statistics

import pytest
from report.runs import PLAIN, THREE, Made, classification, failed, regression

from levelhead.report.evidence import Estimate, read
from levelhead.report.ranking import Ranking, ranked
from levelhead.studies import table
from levelhead.studies.store import find_cells, read_json, read_records, write_json


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = classification(tmp_path_factory.mktemp("runs"), seeds=(0, 1, 2))
    failed(folder, "vat + sngp")
    return folder


@pytest.fixture(scope="module")
def evidence(root):
    return read(root)[0]


def test_the_plain_recipe_comes_first_then_single_parts(evidence):
    assert [c.series.name for c in evidence.contenders] == [
        "plain",
        "deep_ensemble(size=4)",
        "mc_dropout",
        "vat + sngp",
    ]
    assert [c.series.number for c in evidence.contenders] == [1, 2, 3, 4]
    assert evidence.plain is evidence.contenders[0]


def test_what_was_done_and_what_failed(evidence):
    assert len(evidence.done) == 3
    assert [(c.series.name, run.seed) for c, run in evidence.failed] == [("vat + sngp", 0)]
    assert evidence.seeds == [0, 1, 2]
    assert evidence.shifts == ["contrast", "gaussian_noise"]
    assert evidence.severities == [1, 3, 5]
    assert evidence.ood == ["digits"]
    assert evidence.strongest == ["shift-contrast-5", "shift-gaussian_noise-5"]


def test_means_and_errors_are_those_of_the_headline_table(root, evidence):
    expected = table.headline(root).set_index("recipe")
    for contender in evidence.done:
        row = expected.loc[contender.series.name]
        for key, metric, suite, data in (
            ("accuracy", "accuracy", "clean", None),
            ("nll", "nll", "clean", None),
            ("shift_accuracy", "accuracy", "shift", None),
            ("shift_nll", "nll", "shift", None),
            ("ood_auroc", "auroc_total", "ood", None),
            ("train_seconds", "train_seconds", "cost", "train"),
        ):
            found = contender.estimate(metric, suite, data)
            assert found.mean == pytest.approx(row[key], rel=1e-9), key
            assert found.error == pytest.approx(row[f"{key}_se"], rel=1e-6, abs=1e-12), key


def test_marks_are_those_of_the_headline_table(root, evidence):
    expected = table.headline(root)
    for key, metric, suite in (
        ("nll", "nll", "clean"),
        ("shift_accuracy", "accuracy", "shift"),
        ("ece", "ece", "clean"),
    ):
        marks = dict(zip(expected["digest"], table.marks(expected, key), strict=True))
        words = {"best": "best", "tied": "near"}
        assert {d: words[m] for d, m in ranked(evidence, suite, metric).marks().items()} == {
            d: m for d, m in marks.items() if m
        }


def test_a_mean_at_one_severity_is_over_the_shifts_of_each_seed(root, evidence):
    per_seed = []
    for folder in find_cells(root):
        if read_json(folder / "recipe.json")["text"] == "mc_dropout":
            rows = [r for r in read_records(folder) if (r["severity"], r["metric"]) == (3, "nll")]
            per_seed.append(statistics.mean(r["value"] for r in rows))
    contender = next(c for c in evidence.done if c.text == "mc_dropout")
    found = contender.estimate("nll", "shift", None, 3)
    assert found.mean == pytest.approx(statistics.mean(per_seed))
    assert found.error == pytest.approx(statistics.stdev(per_seed) / math.sqrt(3))
    assert found.seeds == 3


def test_one_seed_has_the_error_over_rows_which_does_not_shrink_with_the_shifts(tmp_path):
    contender = read(classification(tmp_path, (PLAIN,), seeds=(4,)))[0].done[0]
    values = contender.runs[0].values
    assert contender.estimate("nll", "clean").error == values["clean", "test", None, "nll_se"]
    errors = [v for (suite, _, _, metric), v in values.items() if suite == "shift" and metric == "nll_se"]
    assert len(errors) == 6
    assert contender.estimate("nll", "shift").error == pytest.approx(statistics.mean(errors))
    assert math.isnan(contender.estimate("auroc_total", "ood").error)


def test_what_was_not_measured_is_none(evidence):
    assert evidence.done[0].estimate("rmse", "clean") is None
    assert evidence.contenders[3].estimate("nll", "clean") is None


def test_chosen_cells_keep_their_order(root):
    cells = [folder for folder in reversed(find_cells(root)) if folder.name == "0"]
    found = read(root, cells)[0]
    texts = [read_json(folder / "recipe.json")["text"] for folder in cells]
    assert [c.text for c in found.contenders] == texts
    assert found.seeds == [0]


def test_recipes_that_were_called_the_same_are_told_apart(tmp_path):
    classification(tmp_path, (Made("vat"), Made("vat"), Made("plain")), seeds=(0,), shifts=(), rows=40)
    for folder in find_cells(tmp_path):
        recipe = read_json(folder / "recipe.json")
        recipe["canonical"] = f"resnet8 + vat(eps={int(recipe['digest'], 16)})"
        write_json(folder / "recipe.json", recipe)
    names = [c.series.name for c in read(tmp_path)[0].contenders]
    assert names == ["plain", "resnet8 + vat(eps=0)", "resnet8 + vat(eps=1)"]


def test_the_backbone_is_named_where_there_are_several(tmp_path):
    classification(tmp_path, THREE[:2], seeds=(0,), shifts=(), rows=40)
    folder = find_cells(tmp_path)[0]
    write_json(folder / "recipe.json", read_json(folder / "recipe.json") | {"backbone": "lenet"})
    names = {c.series.name for c in read(tmp_path)[0].contenders}
    assert names in ({"plain on resnet8", "mc_dropout on lenet"}, {"plain on lenet", "mc_dropout on resnet8"})


def test_a_cell_that_was_killed_before_it_began_is_no_evidence(tmp_path):
    classification(tmp_path, (PLAIN,), seeds=(0,), shifts=(), rows=40)
    (tmp_path / "made-up" / "new-1" / "0").mkdir(parents=True)
    write_json(
        tmp_path / "made-up" / "new-1" / "0" / "status.json",
        {"state": "running", "seconds": 0, "error": None, "traceback": None, "suites": []},
    )
    assert len(read(tmp_path)[0].contenders) == 1


def test_no_run_folder_is_an_error_that_says_what_writes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="levelhead compare"):
        read(tmp_path)


def test_tasks_are_kept_apart(tmp_path):
    classification(tmp_path, (PLAIN,), seeds=(0,), shifts=(), rows=40)
    regression(tmp_path, seeds=(0, 1))
    first, second = read(tmp_path)
    assert (first.task, first.regression, first.published_splits) == ("made-up", False, False)
    assert (second.task, second.regression, second.published_splits) == ("uci/made-up", True, True)


def test_ties_are_within_the_standard_error_of_the_best(evidence):
    best, near, far = Estimate(0.5, 0.02, 3), Estimate(0.519, 0.0, 3), Estimate(0.521, 9.0, 3)
    contenders = evidence.done
    found = Ranking("nll", tuple(zip(contenders, (best, near, far), strict=True)))
    assert list(found.marks().values()) == ["best", "tied"]
    assert Estimate(0.5, math.nan, 1).near(Estimate(0.5, math.nan, 1))
    assert not Estimate(0.6, math.nan, 1).near(Estimate(0.5, math.nan, 1))


def test_higher_is_better_for_accuracy_and_lower_for_nll(evidence):
    for metric, sign in (("accuracy", -1), ("nll", 1)):
        means = [sign * estimate.mean for _, estimate in ranked(evidence, "clean", metric).order]
        assert means == sorted(means)


def test_nobody_wins_a_coverage(tmp_path):
    found = read(regression(tmp_path, seeds=(0, 1)))[0]
    assert ranked(found, "clean", "coverage95").marks() == {}
    assert "best" in ranked(found, "clean", "rmse").marks().values()


def test_the_strongest_severity_is_where_recipes_are_right_least_often(tmp_path):
    (evidence,) = read(classification(tmp_path, (PLAIN,), seeds=(0,), severities=(1, 3, 5), rows=60))
    assert evidence.strongest_severity == 5
    assert evidence.strongest == ["shift-contrast-5", "shift-gaussian_noise-5"]
    run = evidence.done[0].done[0]
    run.__dict__["by_metric"] = {
        ("shift", "accuracy"): [(shift, level, level != 3) for shift in evidence.shifts for level in (1, 3, 5)]
    }
    (again,) = [
        type(evidence)(
            evidence.task, tuple(type(c)(c.series, c.text, c.backbone, c.digest, c.runs) for c in evidence.contenders)
        )
    ]
    assert again.strongest_severity == 3
