"""JSON and back, digests, paths."""

import re
from dataclasses import dataclass

import pytest

from levelhead.backbones.factory import Factory
from levelhead.backbones.mlp import MLP
from levelhead.objectives.vat import VAT
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.values import NoSuchPath, UntrustedPath, digest, from_json, get_path, set_path, snake, to_json

RECIPE = Recipe(backbone=MLP(hidden=(32, 16)), regularisers=(VAT(eps=2.0),), sampler=EMA(inner=SGD(epochs=3)))
ENSEMBLE = DeepEnsemble(member=RECIPE, size=4)


ROOT = __name__.split(".")[0]


@dataclass(frozen=True)
class Outside:
    """A part of somebody else's."""

    strength: float = 1.0


@pytest.mark.parametrize("value", [RECIPE, ENSEMBLE], ids=["recipe", "ensemble"])
def test_json_and_back_is_the_same_value(value: object) -> None:
    assert from_json(to_json(value)) == value
    assert digest(from_json(to_json(value))) == digest(value)


def test_whole_numbers_in_float_fields_are_one_recipe() -> None:
    assert digest(VAT(eps=2)) == digest(VAT(eps=2.0))
    assert from_json(to_json(VAT(eps=2))) == VAT(eps=2.0)
    assert isinstance(from_json(to_json(VAT(eps=2))).eps, float)


def test_any_change_changes_the_digest() -> None:
    changed = [set_path(RECIPE, "sampler.inner.lr", 0.3), set_path(RECIPE, "backbone.hidden", (32,)), ENSEMBLE]
    assert len({digest(value) for value in [RECIPE, *changed]}) == 4


def test_foreign_classes_need_trust() -> None:
    saved = to_json(Outside(2.0))
    with pytest.raises(UntrustedPath, match="trust=" + re.escape(repr((ROOT,)))):
        from_json(saved)
    assert from_json(saved, trust=(ROOT,)) == Outside(2.0)


@pytest.mark.parametrize("target", ["os:system", "levelhead.processes:os.system", "levelhead.processes:torch.load"])
def test_texts_that_name_code_need_trust_too(target: str) -> None:
    saved = {"class": "levelhead.backbones.factory:Factory", "fields": {"target": target}}
    with pytest.raises(UntrustedPath, match=target):
        from_json(saved)
    assert from_json(saved, trust=("*",)).target == target
    saved["fields"] = {"target": "levelhead.backbones.factory:linear"}
    assert from_json(saved) == Factory()


def test_unknown_fields_and_formless_values_are_refused() -> None:
    saved = to_json(VAT())
    saved["fields"]["radius"] = 1
    with pytest.raises(ValueError, match=r"no field \['radius'\]"):
        from_json(saved)
    with pytest.raises(TypeError, match="no plain form"):
        to_json(Outside(strength=lambda: 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path, value",
    [("sampler.inner.lr", 0.1), ("regularisers.0.eps", 2.0), ("regularisers.vat.eps", 2.0), ("backbone.hidden.1", 16)],
)
def test_paths_read_what_stands_there(path: str, value: object) -> None:
    assert get_path(RECIPE, path) == value


def test_paths_write_copies() -> None:
    changed = set_path(ENSEMBLE, "member.regularisers.vat.eps", 3)
    assert get_path(changed, "member.regularisers.0.eps") == 3.0
    assert isinstance(get_path(changed, "member.regularisers.0.eps"), float)
    assert get_path(ENSEMBLE, "member.regularisers.0.eps") == 2.0


def test_wrong_paths_name_what_exists() -> None:
    with pytest.raises(NoSuchPath, match=r"SGD has no field 'rl'.*'lr'"):
        set_path(RECIPE, "sampler.inner.rl", 0.1)
    with pytest.raises(NoSuchPath, match=r"no 'laplace' among \['vat'\]"):
        get_path(RECIPE, "regularisers.laplace.eps")
    with pytest.raises(TypeError, match=r"AdamW.lr wants float, got 'fast'"):
        set_path(AdamW(), "lr", "fast")


def test_snake_names() -> None:
    assert [snake(n) for n in ("MCDropout", "VAT", "SpatialSmoothing", "DeepEnsemble")] == [
        "mc_dropout",
        "vat",
        "spatial_smoothing",
        "deep_ensemble",
    ]
