import torch
from studies.tiny import SMALL, tiny

from levelhead.likelihood import Gaussian
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.studies.protocol import TABLES, trained_as_usual
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

PLAIN = Recipe(backbone=SMALL)


def rows() -> Task:
    generator = torch.Generator().manual_seed(0)
    splits = {
        name: Split(name, torch.randn(9, 2, generator=generator), torch.randn(9, 1, generator=generator))
        for name in ("train", "val", "calibration", "test")
    }
    return Task(name="rows", likelihood=Gaussian(), **splits)


def test_images_train_as_the_recipe_says():
    assert trained_as_usual(PLAIN, tiny(), "plain") == PLAIN


def test_tables_have_a_sampler_of_their_own_where_none_is_named():
    task = rows()
    assert trained_as_usual(PLAIN, task, "plain").sampler == TABLES
    assert trained_as_usual(DeepEnsemble(member=PLAIN), task, "deep_ensemble").member.sampler == TABLES
    averaged = Recipe(backbone=SMALL, sampler=EMA())
    assert trained_as_usual(averaged, task, "ema").sampler == EMA(inner=TABLES)


def test_a_sampler_that_is_named_stays():
    task = rows()
    assert trained_as_usual(PLAIN, task, "sgd").sampler == SGD()
    named = Recipe(backbone=SMALL, sampler=AdamW(epochs=3))
    assert trained_as_usual(named, task, "adamw(epochs=3)") == named
