"""What every part owes to recipes: a plain value with defaults, that JSON, text and digests know."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from contracts.styles import STYLES, TASK, X, attempt, name, regression, wants_targets

from levelhead.backbones.mlp import MLP
from levelhead.catalogue import FAMILIES, find, name_of, parts, recipes
from levelhead.network import build
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.text import FAMILIES as IN_TEXT
from levelhead.text import FIELD, parse, parse_part, part_text, to_text
from levelhead.types import Reference
from levelhead.values import digest, from_json, get_path, set_path, to_json

PARTS = [spec for family in FAMILIES for spec in parts(family)]
WRITTEN = [spec for family in IN_TEXT for spec in parts(family)]
each_part = pytest.mark.parametrize("spec", PARTS, ids=name_of)
each_written = pytest.mark.parametrize("spec", WRITTEN, ids=name_of)
each_named = pytest.mark.parametrize("named", recipes())


def inside(spec: type) -> Recipe:
    """A recipe that holds the part."""
    family = next(family for family in IN_TEXT if spec in parts(family))
    if family == "samplers":
        return Recipe(backbone=MLP(), sampler=spec())
    if family == "backbones":
        return Recipe(backbone=spec())
    return Recipe(backbone=MLP(), **{FIELD[family]: (spec(),)})


@each_part
def test_it_is_a_frozen_value_with_defaults(spec):
    assert spec() == spec()
    assert hash(spec()) == hash(spec())
    assert spec.__dataclass_params__.frozen
    field = next((f.name for f in dataclasses.fields(spec) if f.init), None)
    if field is not None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(spec(), field, None)


@each_part
def test_its_json_reads_back_to_an_equal_value(spec):
    text = json.dumps(to_json(spec()))
    assert from_json(json.loads(text)) == spec()
    assert json.dumps(to_json(from_json(json.loads(text)))) == text


@each_part
def test_its_constructor_stores_its_arguments_under_their_names(spec):
    part = spec()
    given = {field.name: getattr(part, field.name) for field in dataclasses.fields(spec) if field.init}
    assert spec(**given) == part
    assert dataclasses.replace(part) == part


@each_part
def test_it_names_its_paper_in_full_or_not_at_all(spec):
    reference = getattr(spec, "reference", None)
    if reference is not None:
        assert isinstance(reference, Reference)
        assert reference.authors
        assert 1900 < reference.year < 2100
        assert reference.title or reference.arxiv


@each_written
def test_its_text_reads_back_to_an_equal_value(spec):
    assert parse_part(part_text(spec())) == spec()
    recipe = inside(spec)
    assert parse(to_text(recipe)) == recipe
    ensemble = DeepEnsemble(member=recipe, size=2)
    assert parse(to_text(ensemble)) == ensemble


@each_written
def test_a_recipe_with_it_has_a_digest_that_its_json_keeps(spec):
    recipe = inside(spec)
    assert digest(recipe) == digest(from_json(to_json(recipe)))
    other = dataclasses.replace(recipe, backbone=MLP(hidden=(3,)))
    assert digest(other) != digest(recipe)


@each_written
def test_paths_lead_to_its_fields(spec):
    recipe = inside(spec)
    place = next(f.name for f in dataclasses.fields(recipe) if getattr(recipe, f.name) in (spec(), (spec(),)))
    step = f"{place}.{name_of(spec)}" if isinstance(getattr(recipe, place), tuple) else place
    assert get_path(recipe, step) == spec()
    for field in dataclasses.fields(spec):
        if field.init:
            path = f"{step}.{field.name}"
            assert set_path(recipe, path, get_path(recipe, path)) == recipe


@each_written
def test_its_name_finds_it(spec):
    assert find(name_of(spec), IN_TEXT) is spec


def named_recipe(named: str, backbone: Any) -> Any:
    return recipes()[named](backbone)


def about_targets(fit: Any) -> bool:
    """Whether a recipe, or the member that it combines, holds a part for real targets only."""
    fit = getattr(fit, "member", fit)
    return any(map(wants_targets, (*fit.surgery, *fit.regularisers, *fit.posthoc)))


@each_named
def test_a_named_recipe_is_a_value_for_any_backbone(named):
    fit = named_recipe(named, MLP())
    assert hash(fit) == hash(named_recipe(named, MLP()))
    assert from_json(to_json(fit)) == fit
    assert parse(to_text(fit)) == fit
    assert parse(f"mlp + {named}") == fit


@each_named
def test_a_named_recipe_fits_some_style_of_network_and_refuses_the_others_with_advice(named):
    outcomes = []
    table = about_targets(named_recipe(named, MLP()))
    task, x = (regression(), regression().test.x) if table else (TASK, X)
    for backbone in (STYLES["mlp"],) if table else (STYLES["mlp"], STYLES["resnet"], STYLES["tokens"]):
        short = named_recipe(named, backbone).shortened()
        fitted, refusal = attempt(lambda short=short: short.fit(task, 0, rehearsed=True))
        outcomes.append(refusal)
        if fitted is not None:
            with torch.no_grad():
                belief = fitted(x)
            assert (belief.mean if table else belief.probs).shape == (len(x), 1 if table else 3)
            assert (belief.variance if table else belief.probs).isfinite().all()
    assert "" in outcomes, outcomes


def test_build_is_what_fit_starts_from():
    recipe = Recipe(backbone=STYLES["mlp"])
    one, same = recipe.build(TASK, 2), recipe.build(TASK, 2)
    assert all(torch.equal(t, same.state_dict()[key]) for key, t in one.state_dict().items())
    assert one.origin == build(recipe.backbone, (), TASK.signature).origin


def test_ids_are_unique():
    assert len({name(spec()) for spec in WRITTEN}) == len(WRITTEN)
