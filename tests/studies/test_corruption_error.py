"""Mean corruption error of run folders, against sums taken by hand."""

import math
import statistics

import pytest

from levelhead.metrics.mean_corruption_error import ALEXNET, ALEXNET_CLEAN
from levelhead.studies import store
from levelhead.studies.corruption_error import by_severity, corruption_error
from levelhead.studies.store import Status

# error rates by recipe and seed: clean, then fog and snow at severities 1 and 5
ERRORS = {
    "plain": [(0.10, (0.2, 0.4), (0.3, 0.5)), (0.12, (0.3, 0.4), (0.3, 0.7))],
    "vat": [(0.11, (0.1, 0.3), (0.3, 0.4)), (0.12, (0.2, 0.2), (0.2, 0.5))],
}


def cell(root, recipe, seed, clean, sets, *, clean_too=True):
    folder = root / "t" / recipe / str(seed)
    whose = {"task": "t", "recipe": recipe, "backbone": "mlp", "digest": recipe, "seed": seed, "num_examples": 10}
    rows = [("clean", "test", None, clean)] if clean_too else []
    rows += [("shift", data, severity, error) for (data, severity), error in sets.items()]
    rows += [("shift", "rotation", 1, 0.9), ("shift", "street", None, 0.8), ("ood", "digits", None, 0.7)]
    found = []
    for evaluation, data, severity, error in rows:
        place = {**whose, "evaluation": evaluation, "data": data, "severity": severity}
        found += [{**place, "metric": "accuracy", "value": 1 - error}, {**place, "metric": "nll", "value": 3 * error}]
    store.write_records(folder, found)
    store.write_json(folder / "recipe.json", {"canonical": recipe})
    store.write_status(folder, Status("done"))


@pytest.fixture
def root(tmp_path):
    for recipe, seeds in ERRORS.items():
        for seed, (clean, fog, snow) in enumerate(seeds):
            sets = {("fog", 1): fog[0], ("fog", 5): fog[1], ("snow", 1): snow[0], ("snow", 5): snow[1]}
            cell(tmp_path, recipe, seed, clean, sets)
    return tmp_path


def test_without_a_baseline_it_is_the_mean_over_corruptions_and_seeds(root):
    found = corruption_error(root).set_index(["recipe", "metric"])
    for recipe, seeds in ERRORS.items():
        means = [statistics.fmean([*fog, *snow]) for _, fog, snow in seeds]
        gaps = [mean - clean for mean, (clean, _, _) in zip(means, seeds, strict=True)]
        for metric, scale in (("error", 1), ("nll", 3)):
            line = found.loc[recipe, metric]
            assert line["mce"] == pytest.approx(scale * statistics.fmean(means))
            assert line["mce_se"] == pytest.approx(scale * statistics.stdev(means) / math.sqrt(2))
            assert line["relative"] == pytest.approx(scale * statistics.fmean(gaps))
            assert (line["seeds"], line["corruptions"], line["baseline"]) == (2, 2, "")
    assert len(found) == 4  # nothing measured ECE


def test_a_baseline_is_met_seed_by_seed(root):
    found = corruption_error(root, baseline="plain").set_index(["recipe", "metric"])
    assert found.loc["plain", "error"]["mce"] == pytest.approx(1)
    assert found.loc["plain", "nll"]["relative"] == pytest.approx(1)
    expected, relative = [], []
    for (clean, fog, snow), (own, plain_fog, plain_snow) in zip(ERRORS["vat"], ERRORS["plain"], strict=True):
        pairs = [(sum(fog), sum(plain_fog)), (sum(snow), sum(plain_snow))]
        expected.append(statistics.fmean(a / b for a, b in pairs))
        relative.append(statistics.fmean((a - 2 * clean) / (b - 2 * own) for a, b in pairs))
    for metric in ("error", "nll"):
        assert found.loc["vat", metric]["mce"] == pytest.approx(statistics.fmean(expected))
        assert found.loc["vat", metric]["relative"] == pytest.approx(statistics.fmean(relative))
        assert found.loc["vat", metric]["baseline"] == "plain"


def test_the_published_baseline_is_of_errors_alone(tmp_path):
    sets = {(name, severity): error for name, error in ALEXNET.items() for severity in range(1, 6)}
    cell(tmp_path, "alexnet itself", 0, ALEXNET_CLEAN, sets)
    found = corruption_error(tmp_path, baseline="alexnet")
    assert list(found["metric"]) == ["error"]
    assert found["mce"][0] == pytest.approx(1)
    assert found["relative"][0] == pytest.approx(1)
    assert math.isnan(found["mce_se"][0])
    assert found["corruptions"][0] == 15


def test_without_clean_rows_there_is_no_relative_number(tmp_path):
    cell(tmp_path, "plain", 0, 0.0, {("fog", 1): 0.2}, clean_too=False)
    found = corruption_error(tmp_path, metrics=("error",))
    assert found["mce"][0] == pytest.approx(0.2)
    assert math.isnan(found["relative"][0])


def test_a_baseline_must_be_there_and_measured(root):
    with pytest.raises(ValueError, match="'swag' is no recipe here; there are plain, vat"):
        corruption_error(root, baseline="swag")
    cell(root, "more", 0, 0.1, {("fog", 1): 0.2, ("fog", 2): 0.2})
    with pytest.raises(ValueError, match="not measured on fog at severity 2"):
        corruption_error(root, baseline="plain")


def test_severity_zero_is_clean(root):
    found = by_severity(root, metrics=("error",)).set_index(["recipe", "severity"])
    assert [severity for recipe, severity in found.index if recipe == "vat"] == [0, 1, 5]
    for recipe, seeds in ERRORS.items():
        assert found.loc[recipe, 0]["mean"] == pytest.approx(statistics.fmean(clean for clean, _, _ in seeds))
        last = [(fog[1] + snow[1]) / 2 for _, fog, snow in seeds]
        assert found.loc[recipe, 5]["mean"] == pytest.approx(statistics.fmean(last))
        assert found.loc[recipe, 5]["mean_se"] == pytest.approx(statistics.stdev(last) / math.sqrt(2))
        fogs, snows = (statistics.fmean(seed[k][1] for seed in seeds) for k in (1, 2))
        line = found.loc[recipe, 5]
        assert (line["lowest"], line["highest"]) == pytest.approx((min(fogs, snows), max(fogs, snows)))
        assert (line["seeds"], line["corruptions"]) == (2, 2)


def test_a_folder_without_shifts_has_an_empty_table(tmp_path):
    assert list(corruption_error(tmp_path)["mce"]) == []
    assert "relative" in corruption_error(tmp_path).columns
