"""SNGP as a composition, and in company."""

import dataclasses

import pytest
import torch

import levelhead as lh
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.posthoc.gp_posterior import GaussianProcess
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import predict
from levelhead.recipes.sngp import sngp
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.spectral_norm import Bounded
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.text import parse, to_text
from levelhead.values import from_json, to_json


def short(recipe: lh.Recipe, **changes) -> lh.Recipe:
    return dataclasses.replace(recipe, sampler=SGD(epochs=1), **changes)


def moons(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    angle = torch.pi * torch.rand(n, generator=generator)
    x = torch.stack(
        [torch.where(y == 0, angle.cos(), 1 - angle.cos()), torch.where(y == 0, angle.sin(), 0.5 - angle.sin())], 1
    )
    return x + 0.1 * torch.randn(n, 2, generator=generator), y


def test_it_is_a_value_of_three_parts():
    recipe = sngp(ResNet(depth=8), rank=64)
    assert from_json(to_json(recipe)) == recipe
    assert parse("sngp(rank=64)", backbone=ResNet(depth=8)) == recipe
    assert parse(to_text(recipe)) == recipe


def test_on_two_moons_it_knows_what_is_far():
    names = ("train", "val", "calibration", "test")
    splits = [
        Split(name, *moons(n, seed)) for seed, (name, n) in enumerate(zip(names, (400, 20, 100, 200), strict=True))
    ]
    task = lh.Task("moons", *splits, likelihood=lh.likelihood.Categorical(2))
    sampler = AdamW(epochs=15, lr=1e-2, batch_size=50)
    recipe = dataclasses.replace(sngp(MLP(hidden=(64, 64)), rank=256, mean_field=20.0), sampler=sampler)
    fitted = recipe.fit(task)
    plain = dataclasses.replace(recipe, surgery=(), posthoc=()).fit(task)
    far = Split("far", 8 * torch.nn.functional.normalize(torch.randn(200, 2)), torch.zeros(200, dtype=torch.int64))
    near = predict(fitted, task.test)
    assert (near.label == task.test.y).float().mean() > 0.97
    assert predict(fitted, far).confidence.mean() < 0.8
    assert predict(plain, far).confidence.mean() > 0.95
    assert fitted.moments(far.x)[1].mean() > 5 * fitted.moments(task.test.x)[1].mean()


def test_inside_an_ensemble_tempered_outside(tmp_path):
    task = stripes()
    member = short(sngp(ResNet(depth=8), rank=32))
    fitted = lh.DeepEnsemble(member=member, size=2, posthoc=(Temperature(),)).fit(task)
    first, second = fitted.inner.members
    assert isinstance(first, GaussianProcess)
    assert not torch.equal(first.network.head.features.omega, second.network.head.features.omega)  # each its own draw
    x = next(iter(task.test.ordered(8))).x
    lh.save(fitted, tmp_path / "p")
    assert torch.equal(lh.load(tmp_path / "p")(x).logits, fitted(x).logits)


def test_with_dropout_samples_are_members():
    line = "resnet8 + mc_dropout(num_samples=3) + spectral_norm + random_feature_head(rank=32) + gp_posterior"
    fitted = short(parse(line)).fit(stripes())
    belief = fitted(torch.rand(4, 1, 8, 8))
    assert belief.num_members == 3
    assert (belief.epistemic() > 0).all()


def test_dropout_behind_it_does_the_same():
    fitted = short(parse("sngp(rank=32) + mc_dropout(num_samples=3)", backbone=ResNet(depth=8))).fit(stripes())
    assert isinstance(fitted, GaussianProcess)
    assert fitted(torch.rand(4, 1, 8, 8)).num_members == 3


@pytest.mark.parametrize("first", [True, False], ids=["members first", "members last"])
def test_with_batch_ensemble_in_both_orders(first, tmp_path):
    recipe = short(sngp(ResNet(depth=8), rank=32))
    members = BatchEnsemble(num_members=2)
    surgery = (members, *recipe.surgery) if first else (*recipe.surgery, members)
    fitted = short(recipe, surgery=surgery).fit(stripes())
    bounded = [module for module in fitted.network.modules() if isinstance(module, Bounded)]
    assert len(bounded) == 9
    assert fitted.cholesky.shape == (2, 1, 32, 32)
    x = torch.rand(4, 1, 8, 8)
    assert fitted(x).num_members == 2
    assert (fitted(x).epistemic() > 0).all()
    lh.save(fitted, tmp_path / "p")
    assert torch.equal(lh.load(tmp_path / "p")(x).logits, fitted(x).logits)
