"""Rank-1 networks: their divergence, their draws, and what is left of them at rest."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.declared import Posterior
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.rank_one import RankOne
from levelhead.likelihood import Categorical, Signature
from levelhead.objectives.elbo import ELBO, divergence
from levelhead.parameter_groups import groups
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.rank1_bnn import Rank1BNN
from levelhead.tasks.stripes import stripes

IMAGES = Signature(input_shape=(3, 12, 12), num_outputs=5, likelihood=Categorical(5))
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
BACKBONES = [(MLP(hidden=(8, 8)), TABLE), (ResNet(depth=8, width=4), IMAGES)]


def ready(backbone, signature: Signature, **options):
    torch.manual_seed(0)
    return Rank1BNN(**options)(backbone(signature)).double()


def layer(module: nn.Module, **options) -> RankOne:
    settings = {"init": "normal", "init_scale": 0.5, "std": 0.2, "prior_std": 0.1, "fast_lr": 1.0, **options}
    return RankOne(module, 3, **settings).double()


@pytest.mark.parametrize("prior_scale", [None, 0.7])
@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_the_divergence_is_torchs_as_a_mean_over_members(backbone, signature: Signature, prior_scale) -> None:
    made = ready(backbone, signature)
    expected = 0.0
    for found in made.layers(RankOne):
        for mean, rho in ((found.r, found.r_rho), (found.s, found.s_rho)):
            q = Normal(mean, nn.functional.softplus(rho))
            expected += kl_divergence(q, Normal(1.0, prior_scale or 0.1)).sum() / made.num_members
    assert_close(divergence(made, prior_scale), expected)
    at_the_prior = ready(backbone, signature, init="ones", std=0.1)
    assert_close(divergence(at_the_prior, None), torch.zeros((), dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_at_rest_it_is_batch_ensemble_and_without_spread_in_draws_too(backbone, signature: Signature) -> None:
    made = ready(backbone, signature).eval()
    torch.manual_seed(0)
    plain = BatchEnsemble(init="sign")(backbone(signature)).double().eval()
    x = signature.example(4).double()
    assert_close(made(x), plain(x))
    assert not torch.allclose(made(x, num_samples=1), plain(x))
    for found in made.layers(RankOne):
        for rho in (found.r_rho, found.s_rho):
            nn.init.constant_(rho, -80.0)
    assert_close(made(x, num_samples=2), plain(x).repeat_interleave(2, 0))


def test_a_draw_is_one_weight_for_all_rows_at_prediction_and_one_a_row_in_training() -> None:
    found = layer(nn.Linear(4, 5)).eval()
    found.sampling, found.blocks = True, 6  # three members, two samples
    x = torch.randn(1, 4).double().expand(12, -1)
    blocks = found(x).reshape(6, 2, 5)
    assert_close(blocks[:, 0], blocks[:, 1])
    assert not any(torch.allclose(blocks[i], blocks[j]) for i in range(6) for j in range(i))
    rows = found.train()(x)
    assert not any(torch.allclose(rows[i], rows[j]) for i in range(12) for j in range(i))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_moments_of_draws(kind: str) -> None:
    torch.manual_seed(0)
    inner = nn.Linear(3, 2) if kind == "linear" else nn.Conv2d(3, 2, 2)
    found = layer(inner).train()
    shape = (3,) if kind == "linear" else (3, 2, 2)
    x = torch.randn(1, *shape).double()
    many = 60_000
    drawn = found(x.expand(3 * many, *shape)).reshape(3, many, 2)
    weight = found.module.weight.detach().reshape(2, 3, -1)
    std = nn.functional.softplus(found.r_rho[0]).detach()
    for k in range(3):
        parts = (weight * x.reshape(3, -1)).sum(-1)  # (out, in)
        inner_mean = parts @ found.r[0, k].detach()
        inner_var = parts.square() @ std[k].square()
        s, s_var = found.s[0, k].detach(), nn.functional.softplus(found.s_rho[0, k]).detach().square()
        mean = s * inner_mean + found.bias[k].detach()
        variance = s.square() * inner_var + s_var * (inner_mean.square() + inner_var)
        got = drawn[k].detach()
        assert (got.mean(0) - mean).abs().max() < 5 * float((variance / many).sqrt().max())
        assert_close(got.var(0), variance, rtol=0.05, atol=1e-3)


def test_draws_are_cut() -> None:
    found = layer(nn.Linear(1, 1, bias=False), std=1000.0).train()
    nn.init.ones_(found.module.weight)
    assert float(found(torch.ones(3000, 1).double()).detach().abs().max()) <= 100.0


def test_standard_deviations_learn_like_the_vectors_and_do_not_decay() -> None:
    made = Rank1BNN(fast_lr=0.5)(MLP()(TABLE))
    own = {id(p) for found in made.layers(RankOne) for p in (found.r, found.s, found.r_rho, found.s_rho, found.bias)}
    for group in groups(made, lr=0.1, weight_decay=1e-3):
        fast = {id(p) for p in group["params"]} <= own
        assert (group["lr"], group["weight_decay"]) == ((0.05, 0.0) if fast else (0.1, 1e-3))
    assert all(isinstance(found, FastWeights) and isinstance(found, Posterior) for found in made.layers(RankOne))


def test_the_bound_keeps_the_spread_up() -> None:
    task = stripes(n=64)
    spread = {}
    for name, terms in {"bound": (ELBO(temperature=5.0),), "loss alone": ()}.items():
        recipe = Recipe(
            backbone=MLP(hidden=(16,)),
            surgery=(Rank1BNN(std=0.1, init="ones"),),
            regularisers=terms,
            sampler=AdamW(epochs=60, batch_size=16, lr=1e-2, weight_decay=0.0),
        )
        predictor = recipe.fit(task, 0)
        stds = [nn.functional.softplus(m.r_rho).mean() for m in predictor.modules() if isinstance(m, RankOne)]
        spread[name] = float(torch.stack(stds).mean().detach())
    assert spread["bound"] > spread["loss alone"]


def test_validation() -> None:
    for options in (
        {"num_members": 0},
        {"num_samples": 0},
        {"init": "zeros"},
        {"std": 0.0},
        {"prior_std": -1.0},
        {"init_scale": -1.0},
        {"fast_lr": -1.0},
        {"within": "body"},
    ):
        with pytest.raises(ValueError, match=f"Rank1BNN: {next(iter(options))} must"):
            Rank1BNN(**options)
