"""Laplace beyond the head: subsets, structures, links and priors, against matrices by automatic differentiation."""

import math

import pytest
import torch
from posthoc.small import blobs, line, mlp, state, trained
from posthoc.test_laplace import F64, bayesian_linear_regression
from torch import Tensor, nn
from torch.func import functional_call, jacrev

import levelhead as lh
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.curvature.evidence import NetworkEvidence
from levelhead.curvature.links import mackay
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network, build
from levelhead.posthoc.laplace import HeadLaplace, Laplace, NetworkLaplace
from levelhead.predictor import Point
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

STRUCTURES = ["kronecker", "diagonal", "full", "low_rank"]


def point(task: Task, **options) -> Point:
    return trained(mlp(task, dtype=F64), task, **options)


def jacobian(network: Network, x: Tensor) -> Tensor:
    named = {name: p.detach() for name, p in network.named_parameters()}
    found = jacrev(lambda p: functional_call(network, p, (x,))[0])(named)
    return torch.cat([found[name].flatten(2) for name in named], dim=-1)


def theta(network: Network) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def ggn(predictor: Point, task: Task) -> Tensor:
    x = task.train.x.to(F64)
    p = predictor(x).probs.detach()
    j = jacobian(predictor.network, x)
    return torch.einsum("n c p, n c d, n d q -> p q", j, torch.diag_embed(p) - p[:, :, None] * p[:, None], j)


def test_full_over_all_weights_is_the_posterior_of_the_autodiff_ggn():
    task = blobs()
    before = point(task)
    fitted = Laplace(subset="all", structure="full", prior_precision=0.7, link="mackay")(before, task)
    precision = ggn(before, task) + 0.7 * torch.eye(len(theta(before.network)), dtype=F64)
    x = task.test.x.to(F64)
    j = jacobian(before.network, x)
    covariance = j @ torch.linalg.inv(precision) @ j.mT
    expected = mackay(before.outputs(x)[0].detach(), covariance).log_softmax(-1)
    torch.testing.assert_close(fitted(x).log_probs, expected, rtol=1e-6, atol=1e-8)
    log_likelihood = float(before(task.train.x.to(F64)).log_prob(task.train.y).sum().detach())
    weights = theta(before.network)
    expected = log_likelihood - 0.5 * (
        torch.logdet(precision) - len(weights) * math.log(0.7) + 0.7 * weights.square().sum()
    )
    assert fitted.evidence == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("structure", ["full", "kronecker", "low_rank"])
def test_a_linear_network_is_bayesian_linear_regression(structure):
    prior, noise = 0.3, 0.5
    task, before, design, _ = bayesian_linear_regression(prior, noise)
    fitted = Laplace(subset="all", structure=structure, prior_precision=prior)(before, task)
    h = design.T @ design / noise**2
    if structure == "kronecker":  # which gives the bias a block of its own
        h[-1, :-1] = h[:-1, -1] = 0
    test = torch.cat([task.test.x, torch.ones(3, 1)], dim=1).to(F64)
    variance = (test @ torch.linalg.inv(h + prior * torch.eye(4)) * test).sum(-1) + noise**2
    belief = fitted(task.test.x.to(F64))
    torch.testing.assert_close(belief.variance[:, 0], variance, rtol=1e-6, atol=0)
    torch.testing.assert_close(belief.epistemic(), variance - noise**2, rtol=1e-6, atol=0)
    torch.testing.assert_close(belief.mean, before(task.test.x.to(F64)).mean)


def test_gauss_duality():
    """J P^-1 J' = k** - k*X (K + I / noise)^-1 kX*: weights and functions tell the same."""
    prior, noise = 0.3, 0.5
    task, before, design, _ = bayesian_linear_regression(prior, noise)
    fitted = Laplace(subset="all", structure="full", prior_precision=prior)(before, task)
    test = torch.cat([task.test.x, torch.ones(3, 1)], dim=1).to(F64)
    kernel = design @ design.T / prior + noise**2 * torch.eye(20)
    cross = test @ design.T / prior
    variance = (test @ test.T / prior - cross @ torch.linalg.solve(kernel, cross.T)).diagonal()
    torch.testing.assert_close(fitted(task.test.x.to(F64)).variance[:, 0] - noise**2, variance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("structure", ["full", "kronecker", "diagonal"])
def test_over_the_heads_tensors_it_is_the_heads_own_closed_form(structure):
    task = blobs()
    before = point(task)
    x = task.test.x.to(F64)
    closed = Laplace(structure=structure)(before, task)
    passes = Laplace(subset=("head",), structure=structure)(before, task)
    assert isinstance(closed, HeadLaplace)
    assert isinstance(passes, NetworkLaplace)
    assert passes.evidence == pytest.approx(closed.evidence, rel=1e-9)
    torch.testing.assert_close(passes(x).log_probs, closed(x).log_probs, rtol=1e-5, atol=1e-7)


def in_words(options: dict) -> str:
    """Functions by their names: a test's id is the same in every process."""
    return ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in options.items())


def last_weights(network: Network, task: Task) -> Tensor:
    size = len(theta(network))
    return torch.arange(size - network.head.bias.numel() - network.head.weight.numel(), size)


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_a_subnetwork_of_all_heads_weights_is_the_head(structure):
    task = blobs()
    before = point(task)
    x = task.test.x.to(F64)
    chosen = Laplace(subset=last_weights, structure=structure)(before, task)
    closed = Laplace(structure=structure)(before, task)
    assert chosen.evidence == pytest.approx(closed.evidence, rel=1e-9)
    torch.testing.assert_close(chosen(x).log_probs, closed(x).log_probs, rtol=1e-5, atol=1e-7)


def test_frozen_weights_are_constants():
    task = blobs()
    before = point(task)
    before.network.features[0].weight.requires_grad_(False)
    frozen = Laplace(subset="all", structure="full", prior_precision=1.0)(before, task)
    assert frozen.names == ("features.0.bias", "head.weight", "head.bias")
    named = Laplace(subset=("features.0.bias", "head"), structure="full", prior_precision=1.0)(before, task)
    assert torch.equal(frozen(task.test.x.to(F64)).log_probs, named(task.test.x.to(F64)).log_probs)
    assert not before.network.features[0].weight.requires_grad


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("scope", ["all", "layer"])
def test_the_chosen_precisions_have_the_largest_evidence(structure, scope):
    task = blobs()
    fitted = Laplace(subset="all", structure=structure, prior_scope=scope)(point(task), task)
    assert len(set(fitted.prior_precision)) == (1 if scope == "all" else 2)
    value = fitted.curvature()
    weights = value.selection.theta()
    evidence = NetworkEvidence(value, 0.0, weights, (0, 0, 0, 0) if scope == "all" else (0, 0, 1, 1))
    best = torch.tensor([fitted.prior_precision[0], fitted.prior_precision[-1]][: evidence.num_groups], dtype=F64)
    for group in range(evidence.num_groups):
        for factor in (0.8, 1.25):
            moved = best.clone()
            moved[group] *= factor
            assert evidence(moved) < evidence(best)
    leaf = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(evidence(leaf), leaf)
    assert (slope * best).abs().max() < 1e-2  # d evidence / d log precision vanishes at the maximum
    assert torch.autograd.gradcheck(evidence, (best * 1.5).requires_grad_())


def test_a_precision_a_layer_has_more_evidence_than_one_for_all():
    task = blobs()
    before = point(task)
    one = Laplace(subset="all")(before, task).evidence
    assert Laplace(subset="all", prior_scope="layer")(before, task).evidence > one


@pytest.mark.parametrize("choice", ["calibration", (0.01, 1.0, 30.0, 1000.0)], ids=["calibration", "grid"])
@pytest.mark.parametrize("subset", ["head", "all"])
def test_the_tuned_precision_is_the_best_of_a_grid(choice, subset):
    task = blobs()
    before = point(task)
    before.network.head.weight.data *= 5
    fitted = Laplace(subset=subset, prior_precision=choice)(before, task)
    found = fitted.prior_precision if subset == "head" else fitted.prior_precision[0]

    def loss(prior: float) -> float:
        belief = Laplace(subset=subset, prior_precision=prior)(before, task)(task.calibration.x.to(F64))
        return float(held_out_nll(belief, task.calibration.y).detach())

    grid = choice if isinstance(choice, tuple) else torch.logspace(-4, 6, 21).tolist()
    assert loss(found) <= min(loss(p) for p in grid) + 1e-4
    if isinstance(choice, tuple):
        assert any(found == pytest.approx(p) for p in choice)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("link", ["probit", "mackay", "mc", "weights"])
def test_a_tight_posterior_is_the_point(structure, link):
    task = blobs()
    before = point(task)
    x = task.test.x.to(F64)
    fitted = Laplace(subset="all", structure=structure, prior_precision=1e14, link=link, num_draws=3)(before, task)
    torch.testing.assert_close(fitted(x).log_probs, before(x).log_probs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("structure", ["kronecker", "full"])
def test_draws_of_functions_have_the_covariance_of_the_outputs(structure):
    task = line()
    before = point(task)
    x = task.test.x[:4].to(F64)
    drawn = Laplace(subset="all", structure=structure, prior_precision=1.0, link="mc", num_draws=10_000)(before, task)
    closed = Laplace(subset="all", structure=structure, prior_precision=1.0)(before, task)
    expected = closed(x).total() - before(x).total()
    torch.testing.assert_close(drawn(x).epistemic(), expected, rtol=0.06, atol=0)


def test_draws_of_weights_have_the_posteriors_covariance():
    task = blobs()
    fitted = Laplace(subset="all", structure="kronecker", prior_precision=1.0, link="weights")(point(task), task)
    draws = fitted.weight_draws(20_000)
    flat = torch.cat([draws[name].flatten(1) for name, _ in fitted.network.named_parameters()], dim=1)
    value = fitted.curvature()
    expected = value.solve(torch.eye(value.selection.size, dtype=F64), prior=fitted.priors)
    moved = flat - theta(fitted.network)
    torch.testing.assert_close(moved.T @ moved / len(moved), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("link", ["mc", "weights"])
def test_draws_repeat_and_do_not_depend_on_the_batch(link):
    task = blobs()
    fitted = Laplace(subset="all", link=link, num_draws=5)(point(task), task)
    x = task.test.x.to(F64)
    assert fitted(x).num_members == 5
    assert torch.equal(fitted(x).logits, fitted(x).logits)
    torch.testing.assert_close(fitted(x).logits[:, 3:5], fitted(x[3:5]).logits)
    assert (fitted(x).epistemic() > 0).all()
    assert fitted.stochastic
    fitted.rows = 7
    torch.testing.assert_close(fitted(x).logits[:, 6:9], fitted(x[6:9]).logits)
    assert not torch.equal(fitted.with_noise(None)(x).logits, fitted(x).logits)


@pytest.mark.parametrize("link", ["probit", "mackay", "bridge", "mc", "weights"])
@pytest.mark.parametrize("structure", ["kronecker", "low_rank"])
def test_it_is_differentiable_in_x(link, structure):
    task = blobs()
    fitted = Laplace(subset="all", structure=structure, rank=5, link=link, num_draws=3)(point(task), task)
    x = task.test.x[:3].to(F64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: fitted(x).log_probs, x)


OPTIONS = [
    {},
    {"structure": "full", "link": "mc"},
    {"structure": "diagonal", "prior_scope": "layer", "link": "weights"},
    {"structure": "low_rank", "rank": 3, "subset": ("head",), "link": "bridge"},
    {"structure": "diagonal", "subset": last_weights},
    {"structure": "full", "subset": last_weights, "prior_scope": "layer"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=in_words)
def test_saved_and_loaded_it_predicts_the_same_bits(tmp_path, options):
    task = blobs()
    recipe = lh.Recipe(backbone=MLP(hidden=(5,)), sampler=SGD(epochs=1))
    options = {"subset": "all", "num_draws": 4} | options
    fitted = Laplace(**options)(recipe.fit(task), task)
    lh.save(fitted, tmp_path / "laplace")
    again = lh.load(tmp_path / "laplace")
    assert again.evidence == fitted.evidence
    assert all(t.stride() == again.factors[name].stride() for name, t in fitted.factors.items())
    assert torch.equal(again(task.test.x).logits, fitted(task.test.x).logits)


def test_it_moves_to_another_type_with_its_network():
    task = blobs()
    fitted = Laplace(subset="all")(point(task), task)
    expected = fitted(task.test.x.to(F64)).probs
    single = fitted.float()
    assert {t.dtype for t in single.factors.values()} == {F64}
    assert single(task.test.x).probs.dtype == torch.float32
    torch.testing.assert_close(single(task.test.x).probs, expected.float(), atol=1e-5, rtol=1e-4)


def test_the_argument_is_untouched_and_the_task_may_be_sealed():
    task = blobs()
    before = point(task)
    before.zero_grad(set_to_none=True)
    kept = state(before)
    stream = torch.get_rng_state()
    fitted = Laplace(subset="all", prior_precision="calibration", link="mc")(before, task.sealed())
    fitted(task.test.x.to(F64))
    assert all(torch.equal(value, kept[name]) for name, value in before.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(p.requires_grad and p.grad is None for p in before.parameters())


def test_batch_norm_networks_are_taken():
    """Kronecker over all weights, the norms' included, where others refuse."""
    task = stripes(n=24, size=12)
    network = build(ResNet(depth=8, width=4), (), task.signature)
    fitted = Laplace(subset="all", num_draws=4)(Point(network), task)
    assert any("norm" in name or "bn" in name for name in fitted.names)
    belief = fitted(task.test.x / 255)
    assert belief.log_probs.isfinite().all()
    assert (belief.confidence <= Point(network)(task.test.x / 255).confidence + 1e-5).all()


@pytest.mark.parametrize(
    "surgery", [BatchEnsemble(num_members=2), MCDropout(num_samples=2)], ids=["members", "samples"]
)
def test_members_and_samples_are_told_to_take_the_head(surgery):
    task = blobs()
    network = build(MLP(hidden=(5, 5)), (surgery,), task.signature)
    with pytest.raises(CannotCompose, match="subset='head'"):
        Laplace(subset="all")(Point(network), task)


def test_pixels_are_told_to_take_the_head():
    task = blobs()
    network = Network(nn.Unflatten(1, (2, 1)), nn.Linear(1, 3), task.signature, width=1)
    with pytest.raises(CannotCompose, match="subset='head'"):
        Laplace(subset="all")(Point(network), task)


def test_what_does_not_fit_is_refused_before_it_is_allocated():
    task = stripes(n=200, size=12)
    network = build(ResNet(depth=20), (), task.signature)
    laplace = Laplace(subset="all", structure="full")
    memory = laplace.estimate_memory(network, task)
    assert memory.parameters == sum(p.numel() for p in network.parameters())
    assert f"{memory.parameters:,}" in str(memory)
    with pytest.raises(CannotCompose, match=r"GiB.*kronecker.*memory="):
        laplace(Point(network), task)
    kronecker = Laplace(subset="all").estimate_memory(network, task)
    assert kronecker.kept < 2**28 < memory.kept
    few = kronecker.rows(kronecker.fitting + 3.5 * kronecker.row, structure="kronecker")
    assert few == 3


def test_patterns_that_match_nothing_are_refused_with_the_names_there_are():
    with pytest.raises(CannotCompose, match=r"features\.0\.weight"):
        Laplace(subset=("tail*",))(point(blobs(), steps=1), blobs())


@pytest.mark.parametrize(
    "wrong",
    [{"structure": "kronecker", "subset": last_weights}, {"prior_scope": "layer", "prior_precision": "calibration"},
     {"prior_precision": ()}, {"prior_precision": (1.0, -1.0)}, {"kind": "hessian"}, {"temperature": 0.0},
     {"memory": -1.0}, {"rank": 0}],
    ids=in_words,
)  # fmt: skip
def test_combinations_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Laplace(**wrong)


@pytest.mark.parametrize("subset", ["head", "all"])
@pytest.mark.parametrize("kind", ["empirical", "mc"])
def test_other_kinds_of_curvature_predict(subset, kind):
    for task in (blobs(), line()):
        before = point(task)
        fitted = Laplace(subset=subset, kind=kind, prior_precision=1.0)(before, task)
        other = Laplace(subset=subset, prior_precision=1.0)(before, task)
        assert fitted.evidence != other.evidence
        x = task.test.x.to(F64)
        assert (fitted(x).total() > before(x).total() - 1e-9).float().mean() > 0.5


@pytest.mark.parametrize("subset", ["head", "all"])
def test_temperature_is_a_factor_on_data(subset):
    """Half the temperature is every row twice."""
    task = blobs()
    before = point(task)
    cooled = Laplace(subset=subset, prior_precision=1.0, temperature=0.5)(before, task)
    rows = torch.arange(60).repeat(2)
    twice = Task(
        "twice", task.train.take(rows), task.val, task.calibration, task.test, likelihood=task.likelihood,
        known_overlaps=True,
    )  # fmt: skip
    doubled = Laplace(subset=subset, prior_precision=1.0)(before, twice)
    assert cooled.evidence == pytest.approx(doubled.evidence, rel=1e-9)
    x = task.test.x.to(F64)
    torch.testing.assert_close(cooled(x).log_probs, doubled(x).log_probs, rtol=1e-6, atol=1e-8)
