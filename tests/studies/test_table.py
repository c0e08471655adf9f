"""Tables against means and standard errors taken by hand."""

import math
import statistics

import pytest

from levelhead.studies import store, table
from levelhead.studies.store import Status

ACCURACY = {"plain": [0.8, 0.9, 0.7], "vat": [0.85, 0.86, 0.9]}


@pytest.fixture
def root(tmp_path):
    for digest, (recipe, values) in enumerate(ACCURACY.items()):
        for seed, value in enumerate(values):
            cell(
                tmp_path,
                recipe,
                str(digest),
                seed,
                accuracy=value,
                shifted=(value - 0.1, value - 0.3),
                cost=1.0 + digest,
            )
    return tmp_path


def cell(root, recipe, digest, seed, *, accuracy, shifted=(), cost=1.0, canonical=None, backbone="mlp"):
    folder = root / "t" / f"{recipe}-{digest}" / str(seed)
    whose = {"task": "t", "recipe": recipe, "backbone": backbone, "digest": digest, "seed": seed, "num_examples": 10}
    rows = [
        ("clean", "test", None, "accuracy", accuracy),
        ("clean", "test", None, "accuracy_se", 0.01),
        *[("shift", f"s{k}", 1, "accuracy", value) for k, value in enumerate(shifted)],
        ("cost", "test", None, "multiply_adds", cost * 100),
    ]
    names = ("evaluation", "data", "severity", "metric", "value")
    store.write_records(folder, [{**whose, **dict(zip(names, row, strict=True))} for row in rows])
    store.write_json(folder / "recipe.json", {"canonical": canonical})
    store.write_status(folder, Status("done"))
    return folder


def test_means_and_standard_errors_over_seeds(root):
    found = table.headline(root).set_index("recipe")
    for recipe, values in ACCURACY.items():
        assert found.loc[recipe, "accuracy"] == pytest.approx(statistics.mean(values))
        assert found.loc[recipe, "accuracy_se"] == pytest.approx(statistics.stdev(values) / math.sqrt(3))
        # both shifts move a seed by the same: the error over seeds is the clean one, not one over six numbers
        assert found.loc[recipe, "shift_accuracy"] == pytest.approx(statistics.mean(values) - 0.2)
        assert found.loc[recipe, "shift_accuracy_se"] == pytest.approx(statistics.stdev(values) / math.sqrt(3))
        assert found.loc[recipe, "seeds"] == 3
    assert list(found["cost"]) == [1.0, 2.0]


def test_the_summary_has_every_measurement(root):
    found = table.summary(root)
    one = found[(found["recipe"] == "vat") & (found["data"] == "s1")].iloc[0]
    assert one["mean"] == pytest.approx(statistics.mean(ACCURACY["vat"]) - 0.3)
    assert one["seeds"] == 3
    assert len(found) == 2 * 5


def test_one_seed_has_the_error_over_rows(root):
    folder = root / "t" / "vat-1" / "0"
    found = table.headline(folder).iloc[0]
    assert found["accuracy_se"] == 0.01
    assert math.isnan(found["shift_accuracy_se"])
    assert math.isnan(table.summary(folder).query("metric == 'accuracy' and data == 'test'")["se"].iloc[0])


def test_best_and_near_are_marked(root):
    found = table.headline(root)
    assert table.marks(found, "accuracy") == ["", "best"]
    found["accuracy_se"] = 0.2
    assert table.marks(found, "accuracy") == ["near", "best"]
    assert table.marks(found, "coverage95") == ["", ""]
    assert table.marks(found.iloc[:1], "accuracy") == [""]


def test_recipes_of_one_name_are_told_apart(tmp_path):
    cell(tmp_path, "plain", "aaaaaaaa", 0, accuracy=0.5, canonical="mlp + sgd(epochs=3)")
    cell(tmp_path, "plain", "bbbbbbbb", 0, accuracy=0.6, canonical="mlp + sgd(epochs=5)")
    assert list(table.headline(tmp_path)["recipe"]) == ["sgd(epochs=3)", "sgd(epochs=5)"]
    cell(tmp_path, "plain", "cccccccc", 0, accuracy=0.7)
    assert set(table.headline(tmp_path)["recipe"]) == {"plain [aaaaaa]", "plain [bbbbbb]", "plain [cccccc]"}


def test_a_study_names_its_recipes_itself_and_gives_their_order(root):
    cells = [root / "t" / "vat-1" / "0", root / "t" / "plain-0" / "1"]
    found = table.headline(*cells, names={cells[0]: "mine"})
    assert list(found["recipe"]) == ["mine", "plain"]
    assert list(found["accuracy"]) == [0.85, 0.9]


def test_nothing_gives_an_empty_table(tmp_path):
    assert len(table.headline(tmp_path)) == 0
    assert len(table.summary(tmp_path)) == 0
    assert list(table.records(tmp_path).columns) == [*store.COLUMNS, "folder"]


def test_quotes_in_a_path_do_no_harm(tmp_path):
    cell(tmp_path / "it's", "plain", "0", 0, accuracy=0.5)
    assert list(table.headline(tmp_path)["accuracy"]) == [0.5]
