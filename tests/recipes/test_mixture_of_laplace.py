"""A mixture of Laplace approximations against its members and its limits."""

import dataclasses

import torch
from posthoc.small import blobs

import levelhead as lh
from levelhead.backbones.mlp import MLP
from levelhead.metrics.held_out import held_out_nll
from levelhead.posthoc.laplace import HeadLaplace
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import predict
from levelhead.recipes.mixture_of_laplace import mixture_of_laplace
from levelhead.samplers.adamw import AdamW
from levelhead.text import parse, to_text


def recipe(size: int = 3, **options) -> lh.DeepEnsemble:
    ensemble = mixture_of_laplace(MLP(hidden=(16,)), size=size, **options)
    sampler = AdamW(epochs=20, lr=1e-2, batch_size=20)
    return dataclasses.replace(ensemble, member=dataclasses.replace(ensemble.member, sampler=sampler))


def test_it_is_a_value():
    ensemble = mixture_of_laplace(MLP(hidden=(16,)), size=4)
    assert parse(to_text(ensemble)) == ensemble
    assert parse("mlp(hidden=(16,)) + laplace + deep_ensemble(size=4)") == ensemble


def test_it_averages_probabilities_of_its_members_after_the_link():
    task = blobs()
    fitted = recipe().fit(task)
    x = task.test.x
    assert all(isinstance(member, HeadLaplace) for member in fitted.members)
    expected = torch.stack([member(x).probs for member in fitted.members]).mean(0)
    torch.testing.assert_close(fitted(x).probs, expected)
    belief = fitted(x)
    torch.testing.assert_close(belief.total(), belief.aleatoric() + belief.epistemic(), atol=1e-6, rtol=1e-5)


def test_with_a_tight_prior_it_is_the_deep_ensemble():
    task = blobs()
    fitted = recipe(prior_precision=1e12).fit(task)
    plain = dataclasses.replace(recipe(), member=dataclasses.replace(recipe().member, posthoc=())).fit(task)
    torch.testing.assert_close(fitted(task.test.x).probs, plain(task.test.x).probs, atol=1e-5, rtol=1e-4)


def test_its_loss_is_at_most_the_mean_of_its_members():
    task = blobs()
    fitted = recipe().fit(task)
    members = [held_out_nll(predict(member, task.test), task.test.y) for member in fitted.members]
    assert held_out_nll(predict(fitted, task.test), task.test.y) <= torch.stack(members).mean()


def test_tempered_and_saved(tmp_path):
    task = blobs()
    fitted = dataclasses.replace(recipe(link="mc"), posthoc=(Temperature(),)).fit(task)
    x = task.test.x
    assert fitted(x).num_members == 300
    assert torch.equal(fitted(x).label, fitted.inner(x).label)
    lh.save(fitted, tmp_path / "p")
    assert torch.equal(lh.load(tmp_path / "p")(x).logits, fitted(x).logits)
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(fitted(x).total().sum(), x)
    assert torch.isfinite(gradient).all()
