"""SNGP's posterior against Gaussian-process regression written out with kernels."""

import math
from itertools import pairwise

import pytest
import torch
from networks import Noisy, Scaled
from posthoc.small import blobs, line, mlp, state, trained
from torch import nn

import levelhead as lh
from levelhead.backbones.resnet import ResNet
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network
from levelhead.posthoc.gp_posterior import GaussianProcess, GPPosterior
from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Ensemble, Point, WeightSamples
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.tasks.function import function
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose

RANK = 40


def sngp(task, *, seed: int = 0, **head) -> Point:
    network = RandomFeatureHead(rank=RANK, length_scale=1.0, **head)(mlp(task, seed=seed))
    return trained(network, task, steps=40)


def phi(point: Point, x: torch.Tensor) -> torch.Tensor:
    return point.network.head.features(point.network.embed(x)[0]).double().detach()


@pytest.mark.parametrize("ridge", [1.0, 0.2])
def test_the_variance_is_that_of_gaussian_process_regression(ridge):
    task = blobs()
    point = sngp(task)
    fitted = GPPosterior(ridge=ridge, mean_field=1.0)(point, task)
    outputs, variance = fitted.moments(task.test.x)
    train, test = phi(point, task.train.x), phi(point, task.test.x)
    kernel = train @ train.T + ridge * torch.eye(len(train), dtype=torch.float64)
    cross = test @ train.T
    expected = test.square().sum(-1) - (cross @ torch.linalg.inv(kernel) * cross).sum(-1)
    torch.testing.assert_close(variance[0, :, 0].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs, point.outputs(task.test.x))


def test_the_pass_does_not_depend_on_order():
    task = blobs()
    point = sngp(task)
    order = torch.randperm(len(task.train))
    shuffled = lh.Task(
        "shuffled", task.train.take(order), task.val, task.calibration, task.test, likelihood=task.likelihood
    )
    first, second = (GPPosterior(mean_field=1.0)(point, t) for t in (task, shuffled))
    torch.testing.assert_close(first.cholesky, second.cholesky)


def test_copies_of_one_point_shrink_the_variance_there_by_the_known_factor():
    task = blobs()
    point = sngp(task)
    x = task.train.x[:1].expand(30, 2).clone()
    repeated = lh.Task(
        "one", Split("train", x, torch.zeros(30, dtype=torch.int64)), task.val, task.calibration, task.test,
        likelihood=task.likelihood, known_overlaps=True,
    )  # fmt: skip
    fitted = GPPosterior(mean_field=1.0, ridge=0.5)(point, repeated)
    squared = phi(point, x[:1]).square().sum()
    variance = fitted.moments(x[:1])[1].double().squeeze()
    torch.testing.assert_close(variance, 0.5 * squared / (0.5 + 30 * squared), rtol=1e-5, atol=0)


def test_far_from_the_data_the_variance_is_nearly_the_prior_and_near_it_less():
    task = blobs()
    point = sngp(task)
    point.network.features = nn.Sequential(nn.Linear(2, 6, bias=False))  # unbounded features, so that far is far
    fitted = GPPosterior(mean_field=1.0)(point, task)
    near, far = (fitted.moments(x)[1].squeeze() for x in (task.train.x, 1e3 * task.train.x))
    bound = phi(point, task.train.x).square().sum(-1)
    assert (near > 0).all()
    assert (near <= bound).all()
    assert far.mean() > 3 * near.mean()


def test_more_rows_never_raise_the_variance():
    task = blobs()
    point = sngp(task)
    fewer = lh.Task("half", task.train.take(20), task.val, task.calibration, task.test, likelihood=task.likelihood)
    all_rows, some = (GPPosterior(mean_field=1.0)(point, t).moments(task.test.x)[1] for t in (task, fewer))
    assert (all_rows <= some + 1e-6).all()


def test_mean_field_softens_and_keeps_the_label():
    task = blobs()
    point = sngp(task)
    x = task.test.x
    beliefs = [GPPosterior(mean_field=factor)(point, task)(x) for factor in (0.0, 1.0, 30.0, 1e12)]
    assert torch.equal(beliefs[0].log_probs, point(x).log_probs)
    for before, after in pairwise(beliefs):
        assert torch.equal(after.label, before.label)
        assert (after.total() >= before.total() - 1e-6).all()
    torch.testing.assert_close(beliefs[-1].probs, torch.full_like(beliefs[-1].probs, 1 / 3), atol=1e-3, rtol=0)
    outputs, variance = GPPosterior(mean_field=math.pi / 8)(point, task).moments(x)
    expected = (outputs / (1 + math.pi / 8 * variance) ** 0.5).softmax(-1)[0]
    torch.testing.assert_close(GPPosterior(mean_field=math.pi / 8)(point, task)(x).probs, expected)


def test_the_tuned_factor_is_the_best_of_a_grid_on_the_calibration_rows():
    task = blobs()
    point = sngp(task)
    point.network.head.beta.weight.data *= 5  # over-confident, so that there is something to tune
    fitted = GPPosterior()(point, task)
    assert fitted.mean_field > 0
    outputs, variance = (moment.detach() for moment in fitted.moments(task.calibration.x))

    def loss(factor: float) -> float:
        belief = CategoricalMixture(outputs.double() / (1 + factor * variance.double()).sqrt())
        return float(held_out_nll(belief, task.calibration.y))

    best = loss(fitted.mean_field)
    assert best <= min(loss(factor) for factor in (0.0, *torch.logspace(-3, 4, 200).tolist())) + 1e-9
    assert best < loss(0.0)


def test_a_factor_that_cannot_help_is_zero():
    task = blobs()
    point = sngp(task)
    point.network.head.beta.weight.data *= 0.2  # under-confident
    assert GPPosterior()(point, task).mean_field == 0.0


def test_per_class_weights_are_the_papers_formula():
    task = blobs()
    point = sngp(task)
    fitted = GPPosterior(per_class=True, mean_field=1.0)(point, task)
    features, p = phi(point, task.train.x), point(task.train.x).probs.double().detach()
    for k in range(3):
        weights = (p[:, k] * (1 - p[:, k]))[:, None]
        precision = torch.eye(RANK, dtype=torch.float64) + features.T @ (weights * features)
        factor = fitted.cholesky[0, k]
        torch.testing.assert_close(factor @ factor.T, precision, rtol=1e-5, atol=1e-5)
    assert fitted(task.test.x).probs.shape == (20, 3)


def test_regression_is_bayesian_with_the_learned_noise():
    task = line(num_targets=2)
    point = sngp(task)
    fitted = GPPosterior()(point, task)
    x = task.test.x
    scale = torch.tensor(task.likelihood.scale).double()
    _, noise = task.likelihood.moments(point.outputs(x).double().detach())
    _, train_noise = task.likelihood.moments(point.outputs(task.train.x).double().detach())
    train, test = (phi(point, rows) / (RANK / 2) ** 0.5 for rows in (task.train.x, x))  # prior variance 1
    for target in range(2):
        kernel = train @ train.T + torch.diag(train_noise[0, :, target])
        cross = test @ train.T
        variance = test.square().sum(-1) - (cross @ torch.linalg.inv(kernel) * cross).sum(-1)
        expected = (noise[0, :, target] + variance) * scale[target] ** 2
        torch.testing.assert_close(fitted(x).variance[:, target].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fitted(x).aleatoric().double(), (noise[0] * scale**2).sum(-1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fitted(x).mean, point(x).mean)


def test_members_have_a_matrix_each():
    task = blobs()
    torch.manual_seed(0)
    features = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), Scaled(2, 6))
    network = Network(features, nn.Linear(6, 3), task.signature, width=6).declare(num_members=2)
    point = trained(RandomFeatureHead(rank=RANK, length_scale=1.0)(network), task, steps=20)
    fitted = GPPosterior(mean_field=2.0)(point, task)
    assert fitted.cholesky.shape == (2, 1, RANK, RANK)
    both = point.network.embed(task.train.x).detach()
    for member in range(2):
        member_phi = point.network.head.features(both[member]).double()
        precision = torch.eye(RANK, dtype=torch.float64) + member_phi.T @ member_phi
        factor = fitted.cholesky[member, 0]
        torch.testing.assert_close(factor @ factor.T, precision, rtol=1e-5, atol=1e-5)
    assert fitted(task.test.x).num_members == 2


def test_samples_are_read_in_one_pass_with_their_noise():
    task = blobs()
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(2, 6), nn.Tanh(), Noisy()), nn.Linear(6, 3), task.signature, width=6)
    network = RandomFeatureHead(rank=RANK, length_scale=1.0)(network.declare(num_samples=5))
    fitted = GPPosterior(mean_field=2.0)(Point(network, noise=7), task)
    belief = fitted(task.test.x)
    assert belief.num_members == 5
    assert torch.equal(belief.logits, fitted(task.test.x).logits)
    assert fitted.stochastic
    assert not torch.equal(fitted.with_noise(None)(task.test.x).logits, fitted(task.test.x).logits)


def test_void_sites_do_not_count():
    task = blobs()
    likelihood = lh.likelihood.Categorical(3, void=255)
    point = sngp(task)
    y = task.train.y.clone()
    y[20:] = 255
    split = Split("train", task.train.x, y)
    masked = lh.Task("void", split, task.val, task.calibration, task.test, likelihood=likelihood)
    point.network.signature = masked.signature
    few = lh.Task("few", split.take(20), task.val, task.calibration, task.test, likelihood=likelihood)
    first, second = (GPPosterior(mean_field=1.0)(point, t) for t in (masked, few))
    torch.testing.assert_close(first.cholesky, second.cholesky)


def test_the_argument_is_untouched_and_the_task_may_be_sealed():
    task = blobs()
    point = sngp(task)
    before = state(point)
    first = GPPosterior()(point, task.sealed())
    assert all(torch.equal(value, before[name]) for name, value in point.state_dict().items())
    assert not any(module._forward_pre_hooks for module in point.modules())
    assert torch.equal(first(task.test.x).logits, GPPosterior()(point, task)(task.test.x).logits)


def test_it_is_differentiable_in_x():
    task = blobs()
    fitted = GPPosterior(mean_field=1.0)(sngp(task), task).double()
    x = task.test.x[:2].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: fitted(x).total(), x, atol=1e-4)


def test_an_ensemble_is_told_to_hold_it_inside():
    task = blobs()
    with pytest.raises(CannotCompose, match=r"DeepEnsemble\(member=Recipe\(..., posthoc=\(GPPosterior\(\),\)\)\)"):
        GPPosterior()(Ensemble([sngp(task), sngp(task)]), task)


def test_weight_samples_and_finished_predictors_are_told_the_order():
    task = blobs()
    point = sngp(task)
    draws = {"head.beta.weight": point.network.head.beta.weight.detach()[None]}
    with pytest.raises(CannotCompose, match=r"leave GPPosterior\(\) out"):
        GPPosterior()(WeightSamples(point.network, draws), task)
    with pytest.raises(CannotCompose, match=r"posthoc=\(GPPosterior\(\), ...\)"):
        GPPosterior()(GPPosterior()(point, task), task)


def test_moving_to_another_type_keeps_the_factor_precise():
    task = blobs()
    fitted = GPPosterior(mean_field=1.0)(sngp(task), task)
    expected = fitted(task.test.x).probs
    moved = fitted.double()
    torch.testing.assert_close(moved(task.test.x.double()).probs.float(), expected, atol=1e-4, rtol=1e-4)
    assert moved.float().cholesky.dtype == torch.float64
    torch.testing.assert_close(fitted(task.test.x).probs, expected, atol=1e-6, rtol=1e-5)


def test_an_ordinary_head_is_told_what_to_write():
    task = blobs()
    with pytest.raises(CannotCompose, match="RandomFeatureHead"):
        GPPosterior()(Point(mlp(task)), task)


def test_saved_and_loaded_it_predicts_the_same_bits(tmp_path):
    task = stripes()
    recipe = lh.Recipe(
        backbone=ResNet(depth=8), surgery=(SpectralNorm(), RandomFeatureHead(rank=32)), sampler=SGD(epochs=1),
        posthoc=(GPPosterior(),),
    )  # fmt: skip
    fitted = recipe.fit(task)
    lh.save(fitted, tmp_path / "sngp")
    again = lh.load(tmp_path / "sngp")
    assert isinstance(again, GaussianProcess)
    x = next(iter(task.test.ordered(10))).x
    assert torch.equal(again(x).logits, fitted(x).logits)


def test_targets_without_noise_are_told_what_knows_them():
    task = function("levy")
    for network in (mlp(task), RandomFeatureHead(rank=RANK)(mlp(task))):
        with pytest.raises(CannotCompose, match="deep_ensemble, mc_dropout or nomu"):
            GPPosterior()(Point(network), task)


@pytest.mark.parametrize("wrong", [{"ridge": 0.0}, {"mean_field": -1.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GPPosterior(**wrong)
