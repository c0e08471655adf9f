"""What every predictor must do, whichever sampler, post-hoc step or mixture made it."""

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.styles import STYLES, TASK, X, Y, applicable, attempt, fit, host, label_steps, made, name, refusal, specs
from contracts.test_sampler import company, small
from torch.testing import assert_close

from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.predictor import Ensemble, Predictor, predict
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.training import Run, train

SAMPLERS, STEPS, SURGERIES = specs("samplers"), label_steps(), specs("surgeries")
ONE = X[:1]


def sampled(sampler: Any) -> Predictor:
    """A short fit by a sampler with its own settings, sizes aside."""
    style, surgery = company(sampler, "resnet")
    network = made(style, *surgery).train()
    with seeded(0):
        return train(network, TASK.sealed(), (), small(sampler, 2), Run(0))


def after(step: Any) -> Predictor:
    with seeded(0):
        return step(host(step), TASK.sealed()).eval()


def operated(surgery: Any) -> Predictor:
    style = "resnet" if not refusal(surgery, "resnet") else next(applicable(surgery))
    return fit(style, surgery)


SOURCES = {
    **{f"sampler {name(spec)}": (sampled, spec) for spec in SAMPLERS},
    **{f"surgery {name(spec)}": (operated, spec) for spec in SURGERIES},
    **{f"posthoc {name(spec)}": (after, spec) for spec in STEPS},
    "mixture": (lambda style: Ensemble([fit(style), fit(style, seed=1)], torch.tensor([0.3, 0.7]).log()), "mlp"),
}


@cache
def predictor_of(source: str) -> Predictor:
    make, part = SOURCES[source]
    return make(part)


@pytest.fixture(params=SOURCES)
def predictor(request) -> Iterator[Predictor]:
    """The predictor, which no test may change."""
    made_by = predictor_of(request.param)
    held = copy.deepcopy(made_by.state_dict())
    yield made_by
    assert not made_by.training
    assert all(torch.equal(tensor, held[key]) for key, tensor in made_by.state_dict().items())


@torch.no_grad()
def test_probabilities_sum_to_one_and_uncertainties_add_up(predictor):
    belief = predictor(X)
    assert belief.probs.shape == (len(X), 3)
    assert_close(belief.probs.sum(-1), torch.ones(len(X)), rtol=1e-4, atol=1e-5)
    assert_close(belief.log_weights.exp().sum(), torch.ones(()))
    assert (belief.total() >= 0).all()
    assert (belief.aleatoric() >= 0).all()
    assert_close(belief.aleatoric() + belief.epistemic(), belief.total(), rtol=1e-4, atol=1e-4)
    assert belief.log_prob(Y).isfinite().all()
    assert belief.member_log_prob(Y).shape == (belief.num_members, len(X))


@torch.no_grad()
def test_saved_and_loaded_it_predicts_the_same_to_the_bit(predictor, tmp_path: Path):
    loaded = load(save(predictor, tmp_path / "predictor"))
    assert type(loaded) is type(predictor)
    assert not loaded.training
    one, other = predictor(X), loaded(X)
    for key, tensor in one.tensors().items():
        twin = other.tensors()[key]
        assert twin is None if tensor is None else torch.equal(tensor, twin), key


def test_it_is_differentiable_in_x_unless_it_says_not(predictor):
    x = X.clone().requires_grad_(True)
    belief = predictor(x)
    if not predictor.differentiable:
        return
    belief.log_prob(Y).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.flatten(1).any(1).all()
    predictor.zero_grad(set_to_none=True)


@torch.no_grad()
def test_rows_do_not_depend_on_their_company(predictor):
    if predictor.stochastic:  # draws are made for a batch as a whole
        assert torch.equal(predictor(X).log_probs, predictor(X).log_probs)
        return
    whole = predictor(X).log_probs
    split = torch.cat([predictor(X[:5]).log_probs, predictor(X[5:]).log_probs])
    assert_close(split, whole, rtol=1e-4, atol=1e-4)
    assert_close(predictor(ONE).log_probs, whole[:1], rtol=1e-4, atol=1e-4)
    assert_close(predict(predictor, TASK.test, batch_size=5).log_probs, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_noise_repeats_and_fresh_draws_differ(predictor):
    free = copy.deepcopy(predictor)
    assert torch.equal(free(X).log_probs, free(X).log_probs)
    if predictor.stochastic:
        fresh = free.with_noise(None)
        assert fresh is free
        assert not torch.equal(fresh(X).log_probs, fresh(X).log_probs)
        assert torch.equal(fresh.with_noise(7)(X).log_probs, fresh.with_noise(7)(X).log_probs)


@torch.no_grad()
def test_it_leaves_torchs_stream_alone_when_its_noise_is_fixed(predictor):
    before = torch.get_rng_state()
    predictor(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tree_inside_can_be_walked(predictor):
    networks = list(predictor.networks())
    assert networks
    assert all(isinstance(network, Network) for network in networks)
    assert all(network in list(predictor.modules()) for network in networks)
    assert all(child in list(predictor.modules()) for child in predictor.children_predictors())
    assert predictor.stochastic == any(network.stochastic for network in networks)


@torch.no_grad()
def test_copies_and_other_precisions_predict_alike(predictor):
    double = copy.deepcopy(predictor).double()
    belief, expected = double(X.double()), predictor(X)
    assert belief.log_probs.dtype == torch.float64
    if not predictor.stochastic:
        assert_close(belief.log_probs.float(), expected.log_probs, rtol=1e-2, atol=1e-2)
    assert torch.equal(copy.deepcopy(predictor)(X).log_probs, expected.log_probs)
    if torch.cuda.is_available():
        moved = copy.deepcopy(predictor).cuda()(X.cuda())
        assert moved.log_probs.device.type == "cuda"


@torch.no_grad()
def test_calling_train_on_it_and_eval_again_changes_nothing(predictor):
    expected = predictor(X).log_probs
    free = copy.deepcopy(predictor)
    free.train()
    free.eval()
    assert torch.equal(free(X).log_probs, expected)


def test_it_mixes_with_others(predictor):
    other = predictor_of("mixture")
    mixture = Ensemble([predictor, other])
    expected = (predictor(X).probs + other(X).probs) / 2
    assert_close(mixture(X).probs, expected, rtol=1e-4, atol=1e-5)


def test_a_recipe_of_everything_that_goes_together_is_a_predictor():
    """Each post-hoc step at the end of its own recipe; what refuses says why."""
    for step in STEPS:
        for style in ("mlp", "resnet"):
            recipe = Recipe(backbone=STYLES[style], sampler=SGD(epochs=1, batch_size=8), posthoc=(step,))
            fitted, _ = attempt(lambda recipe=recipe: recipe.fit(TASK, 0))
            assert fitted is None or isinstance(fitted, Predictor)
