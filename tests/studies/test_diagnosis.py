"""Looking inside finished runs: measured once, kept beside the run, with reasons."""

import json

import pytest

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.studies import diagnosis as module
from levelhead.studies.compare import compare
from levelhead.studies.diagnosis import ANALYSES, as_data, checked, diagnose
from levelhead.studies.store import Status, find_cells, read_records, read_status, write_status

BACKBONES = {"resnet": ResNet(depth=8, width=4), "mlp": MLP(hidden=(4,))}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A finished run of a residual network, and one of a multilayer perceptron."""
    found = {}
    for name, backbone in BACKBONES.items():
        root = tmp_path_factory.mktemp(name)
        recipe = Recipe(backbone=backbone, sampler=SGD(epochs=1))
        compare("stripes", [recipe], seeds=1, suites=("clean",), root=root, workers=1)
        found[name] = find_cells(root)[0]
    return found


def test_every_analysis_is_measured_once_and_kept(cells, monkeypatch):
    cell = cells["resnet"]
    found = diagnose(cell)
    assert found.left_out == {}
    assert {name.partition("(")[0] for name in found.measured} == set(ANALYSES)
    rows = read_records(cell)
    assert set(ANALYSES) | {"clean"} == {row["evaluation"] for row in rows}
    assert set(found.measured) < set(read_status(cell).suites)
    kept = json.loads((cell / "diagnosis.json").read_text())
    assert len(kept["records"]) == sum(row["evaluation"] in ANALYSES for row in rows)
    assert as_data(found)["records"] == kept["records"]
    monkeypatch.setattr(module, "measure", None)  # whatever would be measured again fails
    assert diagnose(cell) == found
    with pytest.raises(TypeError):
        diagnose(cell, again=True)


def test_other_settings_are_measured_instead(cells):
    cell = cells["resnet"]
    found = diagnose(cell, ["aliasing(limit=7)"])
    assert found.measured == ("aliasing(limit=7)",)
    assert {row["num_examples"] for row in read_records(cell) if row["evaluation"] == "aliasing"} == {7}
    assert diagnose(cell, ["aliasing"]).measured == ("aliasing",)


def test_what_says_nothing_is_left_out_with_the_reason(cells):
    found = diagnose(cells["mlp"])
    assert set(found.left_out) == {"fourier_profile", "feature_map_variance", "lesion_study", "aliasing"}
    assert "no blocks that return maps" in found.left_out["fourier_profile"]
    assert {name.partition("(")[0] for name in found.measured} == {"band_noise", "shift_consistency"}
    assert diagnose(cells["mlp"]) == found


def test_other_suites_and_unfinished_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no analysis 'cost'; there are fourier_profile"):
        checked(["aliasing", "cost"])
    write_status(tmp_path, Status())
    with pytest.raises(FileNotFoundError, match="holds no finished predictor"):
        diagnose(tmp_path)
