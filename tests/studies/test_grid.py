import dataclasses
import json

import pytest
from studies.tiny import SMALL, FailsOnAllRows, tiny

from levelhead.backbones.factory import Factory
from levelhead.backbones.lenet import LeNet
from levelhead.objectives.vat import VAT
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG
from levelhead.studies.grid import (
    backbone_text,
    change,
    check,
    epochs_of,
    fit_slug,
    label,
    plan,
    read_backbone,
    read_recipe,
    whole,
)
from levelhead.studies.study import BadStudy, Study
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.values import NoSuchPath, to_json

PLAIN = Recipe(backbone=SMALL)


def names_and_seeds(cells):
    return [(cell.name, cell.seed) for cell in cells]


def a_recipe(backbone):
    return Recipe(backbone=backbone, sampler=SGD(epochs=2))


def no_recipe(backbone):
    return repr(backbone)


def test_cells_are_recipes_by_backbones_by_seeds(tmp_path):
    study = Study(tiny(), ("plain", "vat"), ("mlp(hidden=(8,))", "mlp(hidden=(4,))"), seeds=(0, 3))
    cells = plan(study, tmp_path)
    assert len(cells) == len({cell.folder for cell in cells}) == 8
    assert names_and_seeds(cells)[:4] == [("plain", 0), ("plain", 3), ("vat", 0), ("vat", 3)]
    assert {cell.backbone for cell in cells} == {"mlp(hidden=(8, ))", "mlp(hidden=(4, ))"}
    first = cells[0]
    assert first.folder == tmp_path / "stripes" / f"mlp-{first.identity}" / "0"


def test_the_digest_is_of_the_value_and_the_data_and_nothing_else(tmp_path):
    def identity(recipe, task=None, **others):
        return plan(Study(task or tiny(), (recipe,), ("mlp(hidden=(8,))",), **others), tmp_path)[0].identity

    plain = identity("plain")
    assert identity(PLAIN) == identity("mlp(hidden=[8])") == plain  # other words for it
    assert identity("plain", seeds=(7,), suites=("clean",)) == plain
    assert identity("sgd(lr=0.2)") != plain
    assert identity("plain", changes=(("sampler.lr", 0.2),)) == identity("sgd(lr=0.2)")
    other = dataclasses.replace(tiny(), test=tiny().test.take(10))
    assert identity("plain", other) != plain


def test_digests_of_the_past_still_name_the_same_folders(tmp_path):
    """Changing this number orphans everybody's finished runs: only with a reason that is worth it."""
    value = Recipe(backbone=LeNet(), regularisers=(VAT(eps=2.0),))
    assert json.dumps(to_json(value), sort_keys=True).startswith(
        '{"class": "levelhead.recipe:Recipe", "fields": {"backbone"'
    )
    again = plan(Study(tiny(), (value,), seeds=(0,)), tmp_path)[0]
    assert again.identity == plan(Study(tiny(), ("lenet + vat(eps=2)",), seeds=(0,)), tmp_path)[0].identity


def test_equal_cells_are_there_once_under_the_first_name(tmp_path):
    study = Study(tiny(), ("plain", "mlp(hidden=(8,))", "sgd + plain"), ("mlp(hidden=(8,))",), seeds=(0,))
    assert names_and_seeds(plan(study, tmp_path)) == [("plain", 0)]


def test_everything_wrong_is_said_together(tmp_path):
    study = Study(tiny(), ("plain", "vatt", "vat(eps='far')", "studies.test_grid:nobody"), ("mlp",), seeds=(0,))
    with pytest.raises(BadStudy) as caught:
        plan(study, tmp_path)
    text = str(caught.value)
    assert "3 recipes cannot run" in text
    assert "did you mean vat" in text
    assert "VAT.eps wants float" in text
    assert "nobody" in text
    assert not list(tmp_path.iterdir())


def test_rehearsal_finds_what_cannot_compose_before_anything_trains(tmp_path):
    study = Study(tiny(), ("plain", "spectral_norm + spectral_norm + lenet"), ("mlp(hidden=(8,))",), seeds=(0, 1))
    told = []
    with pytest.raises(BadStudy, match="lenet"):  # its pixels do not suffice
        check(plan(study, tmp_path), told.append)
    assert len(told) == 2  # once a recipe, not once a seed
    assert set(check(plan(dataclasses.replace(study, recipes=("plain",)), tmp_path))) == {
        plan(dataclasses.replace(study, recipes=("plain",)), tmp_path)[0].identity
    }


def test_all_forms_of_a_recipe(tmp_path):
    expected = Recipe(backbone=SMALL, sampler=SGD(epochs=2))
    saved = tmp_path / "recipe.json"
    saved.write_text(json.dumps({"text": "mine", "json": to_json(expected)}))
    text = "mlp(hidden=(8,))"
    assert read_recipe("sgd(epochs=2)", text, tiny()) == ("sgd(epochs=2)", expected)
    assert read_recipe("studies.test_grid:a_recipe", text, tiny()) == ("studies.test_grid:a_recipe", expected)
    assert read_recipe(a_recipe, SMALL, tiny()) == ("a_recipe", expected)
    assert read_recipe(expected, None, tiny()) == ("sgd(epochs=2)", expected)
    assert read_recipe(str(saved), None, tiny()) == ("mine", expected)
    with pytest.raises(TypeError, match="wants a recipe"):
        read_recipe("studies.test_grid:no_recipe", text, tiny())


def test_a_backbone_may_be_a_function_of_ones_own():
    assert read_backbone("levelhead.backbones.factory:linear") == Factory("levelhead.backbones.factory:linear")
    assert read_backbone("mlp(hidden=(8,))") == SMALL


def test_changes_reach_into_combinators_and_wrappers():
    ensemble = DeepEnsemble(member=Recipe(backbone=SMALL, sampler=SWAG()), size=2)
    assert change(ensemble, "sampler.epochs", 7).member.sampler.inner.epochs == 7
    assert change(ensemble, "size", 3).size == 3
    assert change(PLAIN, "sampler.epochs", 7).sampler.epochs == 7
    with pytest.raises(NoSuchPath):
        change(ensemble, "sampler.epoch", 7)


def test_a_change_must_have_a_place_somewhere(tmp_path):
    study = Study(tiny(), ("plain", "vat"), ("mlp",), seeds=(0,), changes=(("regularisers.vat.eps", 2),))
    assert [cell.fit.regularisers for cell in plan(study, tmp_path)] == [(), (VAT(eps=2.0),)]
    nowhere = dataclasses.replace(study, changes=(("sampler.epoch", 2),))
    with pytest.raises(BadStudy, match=r"no recipe has it.*did you mean 'epochs'"):
        plan(nowhere, tmp_path)
    wrong = dataclasses.replace(study, changes=(("sampler.epochs", "many"),))
    with pytest.raises(BadStudy, match="wants int"):
        plan(wrong, tmp_path)


def test_names_of_folders_hold_for_any_recipe():
    assert fit_slug(PLAIN) == "mlp"
    assert (
        fit_slug(DeepEnsemble(member=Recipe(backbone=SMALL, regularisers=(VAT(eps=1e5),)))) == "mlp+vat+deep_ensemble"
    )
    assert fit_slug(FailsOnAllRows()) == "fails_on_all_rows"
    assert label("  vat   +  swag ") == "vat + swag"
    assert label(FailsOnAllRows()) == "fails_on_all_rows"
    assert backbone_text(DeepEnsemble(member=DeepEnsemble(member=PLAIN))) == "mlp(hidden=(8, ))"


def test_epochs_count_members():
    assert epochs_of(DeepEnsemble(member=Recipe(backbone=SMALL, sampler=SGD(epochs=3)), size=4)) == 12
    assert epochs_of(FailsOnAllRows()) == 1


def test_published_splits_of_one_data_set_share_their_digest():
    task = dataclasses.replace(tiny(), args={"split": 0})
    swapped = dataclasses.replace(
        task,
        train=Split("train", task.test.x, task.test.y),
        test=Split("test", task.train.x, task.train.y),
        args={"split": 1},
    )
    assert task.digest != swapped.digest
    assert whole(task) == whole(swapped)
    fewer = dataclasses.replace(swapped, train=swapped.train.take(20))
    assert whole(fewer) != whole(task)
    assert whole(tiny()) == tiny().digest


def test_changes_of_the_task_are_options_of_its_loader(tmp_path):
    study = Study(task="stripes", recipes=("plain",), backbones=("mlp",), seeds=(0,), changes=(("task.noise", 0.1),))
    (cell,) = plan(study, tmp_path)
    assert dict(cell.source.load().args)["noise"] == 0.1
    assert cell.description["options"] == {"noise": 0.1}
    with pytest.raises(BadStudy, match="no option nose"):
        plan(dataclasses.replace(study, changes=(("task.nose", 1),)), tmp_path)
    with pytest.raises(BadStudy, match="want a task by name"):
        plan(dataclasses.replace(study, task=stripes()), tmp_path)


def test_a_split_that_is_named_is_the_split_of_all_seeds(data_dir, tmp_path):
    study = Study(task="uci/yacht", recipes=("plain",), backbones=("mlp",), options=(("data_dir", str(data_dir)),))
    gap = plan(dataclasses.replace(study, changes=(("task.split", "gap-1"),)), tmp_path)
    assert [(cell.seed, cell.source.load().args["split"]) for cell in gap] == [(0, "gap-1"), (1, "gap-1"), (2, "gap-1")]
    assert len(plan(dataclasses.replace(study, task="uci-gap/yacht"), tmp_path)) == 6
