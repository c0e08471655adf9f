"""Dead inputs and directions without variance are counted, in tables, pixels and patches, and where there are none."""

import dataclasses

import pytest
import torch
from doctor.test_data import LABELS, features, found, table

from levelhead.backbones.mlp import MLP
from levelhead.doctor import _directions, examine
from levelhead.doctor._diagnosis import Findings
from levelhead.objectives.emp_cov_prior import EmpCovPrior
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.tasks.digits import digits
from levelhead.tasks.split import Split


def directions_of(x: torch.Tensor) -> tuple[str, str]:
    """Level and text of the finding about rows."""
    findings = Findings("data")
    _directions.directions(Split("train", x, torch.zeros(len(x), dtype=torch.int64)), findings)
    (finding,) = findings
    return finding.level, finding.text


def noise(n: int = 300, channels: int = 1, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)


def test_columns_that_depend_on_others_are_named():
    x = torch.cat([features(), features()], 1)
    x[:, 4] = 2 * x[:, 1] - x[:, 3] + 5
    assert found(table(x, LABELS))["directions"] == (
        "1 of 6 directions never vary: linear dependence among columns 1, 3, 4"
    )


def test_columns_are_called_by_their_names_where_these_are_known():
    x = torch.cat([features(), features()], 1)
    x[:, 0] = 1.0
    x[:, 4] = 2 * x[:, 1] - x[:, 3] + 5
    warnings = found(table(x, LABELS, columns=("unit", "b", "c", "d", "e", "f")))
    assert warnings["constant features"] == "columns unit never change in train"
    assert warnings["directions"].endswith("among columns b, d, e")


def test_a_recipe_that_has_the_prior_is_not_told_to_add_it():
    task = table(features()[:, [0, 1, 2, 0]], LABELS)
    recipe = Recipe(backbone=MLP(hidden=(4,)))
    for fit, says in (
        (recipe, "add emp_cov_prior"),
        (dataclasses.replace(recipe, regularisers=(EmpCovPrior(),)), "which this recipe has"),
        (DeepEnsemble(member=dataclasses.replace(recipe, regularisers=(EmpCovPrior(),))), "which this recipe has"),
    ):
        (step,) = (f.next_step for f in examine(fit, task=task).findings if f.check == "directions")
        assert says in step


def test_it_is_a_matter_of_directions_and_not_of_units():
    x = features() * torch.tensor([1e-6, 1.0, 1e6]) + torch.tensor([0.0, 300.0, 0.0])
    assert "varies along all 3" in found(table(x, LABELS), "ok")["directions"]


def test_constant_columns_are_told_once():
    x = features()
    x[:, 0] = 1.0
    warnings = found(table(x, LABELS))
    assert list(warnings) == ["constant features"]


def test_fewer_rows_than_features():
    level, text = directions_of(torch.randn(20, 30))
    assert level == "warning"
    assert text == "20 rows cannot span 30 features: 11 directions are without variance"


def test_dead_pixels_and_patches_without_variance():
    x = noise()
    x[..., 0] = 7
    level, text = directions_of(x)
    assert level == "warning"
    assert text == "without variance in train: 6 of 36 pixels never change"
    x = noise(channels=2)
    x[:, 1] = 255 - x[:, 0]
    assert directions_of(x)[1] == (
        "without variance in train: 36 of 72 directions of the others; 9 of 18 directions of 3 x 3 patches"
    )


def test_images_that_vary_everywhere_are_fine():
    assert directions_of(noise()) == ("ok", "train varies in all 36 pixels and all 9 directions of patches")


def test_the_padded_digits_of_the_paper_have_the_problem():
    train = digits().train
    x = torch.nn.functional.pad(train.x, (1, 1, 1, 1))
    dead = 100 - int((x != x[:1]).any(0).sum())
    assert f"{dead} of 100 pixels never change" in directions_of(x)[1]


def test_directions_of_little_variance_are_told():
    x = noise(400).clamp(100, 140)
    x[:, 0, 1] = x[:, 0, 0]
    x[:200:100, 0, 1, 2] += 1
    level, text = directions_of(x)
    assert level == "warning"
    assert text.startswith("without variance in train: 5 of 36 directions of the others")
    assert text.endswith("; 1 of 36 directions of pixels have less than 1/400 of a pixel's variance")


@pytest.mark.parametrize("limit", ["MOST_ROWS", "MOST_IMAGES"])
def test_large_splits_are_looked_at_in_part(limit, monkeypatch):
    monkeypatch.setattr(_directions, limit, 100)
    monkeypatch.setattr(_directions, "CHUNK", 30)
    assert directions_of(noise(250))[0] == "ok"


def test_other_shapes_are_left_alone():
    findings = Findings("data")
    _directions.directions(Split("train", torch.randn(9, 4, 5), torch.zeros(9, dtype=torch.int64)), findings)
    assert not list(findings)
