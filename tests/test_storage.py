"""Saved and loaded predictors are the same, to the bit, and loading runs no foreign code."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.network import Network
from levelhead.predictor import Ensemble, Point, Predictor, WeightSamples
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG
from levelhead.storage import load, save
from levelhead.tasks.stripes import stripes
from levelhead.values import UntrustedPath

TASK = stripes(n=48)
X = TASK.test.x / 255
SGD2 = SGD(epochs=2, batch_size=16, lr=0.05)


def fitted() -> dict[str, Predictor]:
    mlp, resnet = Recipe(backbone=MLP(), sampler=SGD2), Recipe(backbone=ResNet(depth=8, width=4), sampler=SGD2)
    weighted = Ensemble([mlp.fit(TASK, 0), mlp.fit(TASK, 1)], torch.tensor([0.3, 0.7]).log())
    return {
        "point": resnet.fit(TASK, 0),
        "ensemble": DeepEnsemble(member=mlp, size=2).fit(TASK, 0),
        "weighted": weighted,
        "swag": Recipe(backbone=ResNet(depth=8, width=4), sampler=SWAG(inner=SGD2, num_draws=2)).fit(TASK, 0),
    }


def test_saved_and_loaded_predictions_are_equal_to_the_bit(tmp_path: Path) -> None:
    for name, predictor in fitted().items():
        loaded = load(save(predictor, tmp_path / name))
        assert type(loaded) is type(predictor)
        assert torch.equal(loaded(X).log_probs, predictor(X).log_probs), name
        assert not loaded.training
        save(predictor, tmp_path / name)  # writing over an older one


def test_loading_leaves_torchs_stream_alone(tmp_path: Path) -> None:
    place = save(Recipe(backbone=MLP(), sampler=SGD2).fit(TASK, 0), tmp_path / "p")
    torch.manual_seed(1)
    expected = torch.randn(2)
    torch.manual_seed(1)
    load(place)
    assert torch.equal(torch.randn(2), expected)


def test_foreign_names_in_a_file_are_not_imported(tmp_path: Path) -> None:
    place = save(Recipe(backbone=MLP(), sampler=SGD2).fit(TASK, 0), tmp_path / "p")
    file = place / "predictor.json"
    saved = json.loads(file.read_text())
    saved["tree"]["predictor"] = "os:system"
    file.write_text(json.dumps(saved))
    with pytest.raises(UntrustedPath, match="os:system"):
        load(place)


def test_hand_made_networks_cannot_be_saved_and_say_why(tmp_path: Path) -> None:
    network = Network(nn.Flatten(), nn.Linear(64, 3), TASK.signature, width=64)
    with pytest.raises(ValueError, match="Factory"):
        save(Point(network), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_missing_and_newer_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no saved predictor"):
        load(tmp_path)
    (tmp_path / "predictor.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        load(tmp_path)


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    network = next(Recipe(backbone=MLP(), sampler=SGD2).fit(TASK, 0).networks())
    shared = torch.randn(2, *network.head.weight.shape)
    samples = WeightSamples(network, {"head.weight": shared})
    place = save(Ensemble([samples, samples]), tmp_path / "p")
    aliases = json.loads((place / "predictor.json").read_text())["aliases"]
    assert "predictor.members.1.draws.head.weight" in aliases
    assert torch.equal(load(place)(X).probs, Ensemble([samples, samples])(X).probs)
