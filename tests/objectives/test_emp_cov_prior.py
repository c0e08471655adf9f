"""EmpCov against torch's multivariate normal, on dense and convolutional layers, and where inputs do not vary."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from contracts.styles import made
from einops import rearrange
from networks import SIGNATURE, network
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.layers.gaussian_weights import GaussianWeights
from levelhead.likelihood import Categorical
from levelhead.network import Network
from levelhead.objectives.emp_cov_prior import EmpCovPrior
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.priors.correlated import Correlated
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mean_field import MeanField
from levelhead.surgeries.mimo import MIMO
from levelhead.surgeries.self_tuning import SelfTuning
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose

IMAGES = stripes(n=24, size=12)


def table(x: Tensor, classes: int = 3) -> Task:
    """A task of these rows, split between train and the rest."""
    y = torch.arange(len(x)) % classes
    tail = torch.arange(6, dtype=torch.float32)[:, None].expand(6, x.shape[1])
    rest = [Split(name, tail[2 * i : 2 * i + 2], y[:2]) for i, name in enumerate(("val", "calibration", "test"))]
    return Task("table", Split("train", x, y), *rest, Categorical(classes))


def rows(n: int = 50, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator) @ torch.randn(width, width, generator=generator)


def piece(network_: Network, task: Task, spec: EmpCovPrior) -> Correlated:
    found = spec.start(network_, task, Run(0)).pieces[0]
    assert isinstance(found, Correlated)
    return found


def test_density_score_and_draws_of_a_dense_layer_are_torchs():
    spec, x = EmpCovPrior(alpha=0.5, eps=0.01, scale=0.3), rows()
    mlp = network().double()
    prior = spec.start(mlp, table(x), Run(0))
    sigma = 0.5 * torch.cov(x.double().T, correction=0) + 0.01 * torch.eye(4)
    first = MultivariateNormal(torch.zeros(4, dtype=torch.float64), sigma)
    weight = mlp.features[0].weight
    others = [p for p in mlp.parameters() if p is not weight]
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 0.3)
    expected = first.log_prob(weight).sum() + sum(normal.log_prob(p).sum() for p in others)
    assert_close(prior.log_prob(mlp), expected)
    (score,) = torch.autograd.grad(expected, weight)
    assert_close(torch.autograd.grad(-prior.energy(mlp), weight)[0], score)
    torch.manual_seed(0)
    drawn = torch.cat([prior.draw(mlp)["features.0.weight"] for _ in range(1000)])
    error = sigma.diagonal().sqrt().outer(sigma.diagonal().sqrt()) * math.sqrt(2 / len(drawn))
    assert bool(((torch.cov(drawn.T) - sigma).abs() < 4.5 * error).all())


def test_with_unit_covariance_it_is_the_gaussian_prior():
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    mlp = network().double()
    both = [
        spec.start(mlp, table(corners), Run(0)).log_prob(mlp)
        for spec in (EmpCovPrior(alpha=0.04, eps=0.0, scale=0.2), GaussianPrior(0.2))
    ]
    assert_close(both[0], both[1])


@pytest.mark.parametrize("include_bias", [False, True])
def test_without_alpha_pre_activations_have_the_gaussian_priors_variance(include_bias):
    x = rows(4000)
    x -= x.mean(0)
    mlp = network().double()
    task, spec = table(x), EmpCovPrior(eps=1e-9, scale=0.3, include_bias=include_bias)
    z = torch.cat([x, torch.ones(len(x), 1)], 1) if include_bias else x
    expected = 0.09 * z.double().square().sum(1).mean()
    covariance = piece(mlp, task, spec).covariance[0]
    assert_close(torch.einsum("ni,ij,nj->n", z.double(), covariance, z.double()).mean(), expected, rtol=1e-5, atol=0)


def test_the_product_with_the_independent_prior_adds_precisions():
    mlp, x = network(), rows()
    both = EmpCovPrior(alpha=0.5, eps=0.01, scale=0.3, also_independent=True)
    alone = dataclasses.replace(both, also_independent=False)
    expected = piece(mlp, table(x), alone).precision + torch.eye(4) / 0.09
    assert_close(piece(mlp, table(x), both).precision, expected)


def test_inputs_are_measured_behind_the_normalisation():
    x = rows() + 7
    task = table(x)
    mlp = MLP(hidden=(5,))(task.signature).double()
    seen = (x - torch.tensor(task.signature.mean)) / torch.tensor(task.signature.std)
    spec = EmpCovPrior(alpha=0.4)
    expected = 0.4 * torch.cov(seen.double().T, correction=0) + spec.eps * torch.eye(4)
    assert_close(piece(mlp, task, spec).covariance[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("stride, padding, dilation, groups", [(1, 2, 1, 1), (2, "zeros", 2, 1), (1, 1, 1, 2)])
def test_a_convolutions_prior_is_the_dense_one_on_its_unfolded_patches(stride, padding, dilation, groups):
    torch.manual_seed(0)
    padding = 0 if padding == "zeros" else padding
    conv = nn.Conv2d(2, 4, 3, stride=stride, padding=padding, dilation=dilation, groups=groups)
    features = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(20, 2, 8, 9)
    signature = table(rows()).signature
    signature = type(signature)((2, 8, 9), 3, signature.likelihood, (0.0,), (1.0,))
    net = Network(features, nn.Linear(4, 3), signature, width=4).double()
    y = torch.arange(20) % 3
    task = Task("c", *(Split(n, x[a:b], y[a:b]) for n, a, b in PARTS), Categorical(3))
    spec = EmpCovPrior(alpha=0.3, eps=0.02)
    found = piece(net, task, spec)
    unfolded = F.unfold(x[:14].double(), 3, dilation, padding, stride)
    blocks = rearrange(unfolded, "b (g i) place -> g i (b place)", g=groups)
    sigma = torch.stack([0.3 * torch.cov(block, correction=0) + 0.02 * torch.eye(block.shape[0]) for block in blocks])
    assert_close(found.covariance, sigma)
    weight = rearrange(conv.weight, "(g o) c h w -> g o (c h w)", g=groups)
    expected = 0.5 * sum((w @ torch.linalg.inv(s) * w).sum() for w, s in zip(weight, sigma, strict=True))
    assert_close(found.energy(net), expected)


PARTS = (("train", 0, 14), ("val", 14, 16), ("calibration", 16, 18), ("test", 18, 20))


def test_a_rank_deficient_covariance_needs_eps():
    x = rows()
    x[:, 1] = 3.0
    x[:, 2] = -2 * x[:, 0]
    with pytest.raises(CannotCompose, match="2 of 4 directions"):
        piece(network(), table(x), EmpCovPrior(eps=0.0))
    precision = piece(network(), table(x), EmpCovPrior(alpha=1.0, eps=1e-3)).precision[0]
    assert_close(precision, precision.T)
    assert float(torch.linalg.eigvalsh(precision).min()) > 0


def test_weights_along_directions_without_variance_are_held_at_eps():
    x = rows()
    x[:, 2] = -2 * x[:, 0]
    mlp = network()
    found = piece(mlp, table(x), EmpCovPrior(alpha=1.0, eps=1e-3))
    c = torch.tensor([2.0, 0.0, 1.0, 0.0])
    torch.manual_seed(0)
    drawn = torch.cat([found.draw(mlp)["features.0.weight"] for _ in range(1000)]) @ c
    assert_close(drawn.var(), torch.tensor(1e-3 * 5), rtol=5 * math.sqrt(2 / 5000), atol=0)


def test_with_its_bias_a_neuron_is_held_along_affine_constraints():
    x = rows()
    x[:, 1] = 3.0
    mlp = network()
    found = piece(mlp, table(x), EmpCovPrior(alpha=1.0, eps=1e-3, include_bias=True))
    c, c0 = torch.tensor([0.0, 1.0, 0.0, 0.0]), 3.0
    torch.manual_seed(0)
    draws = [found.draw(mlp) for _ in range(1000)]
    along = torch.cat([draw["features.0.weight"] @ c - c0 * draw["features.0.bias"] for draw in draws])
    assert_close(along.var(), torch.tensor(1e-3 * (1 + c0**2)), rtol=5 * math.sqrt(2 / 5000), atol=0)
    bias = torch.cat([draw["features.0.bias"] for draw in draws])
    assert_close(bias.var(), torch.tensor(1 + 1e-3), rtol=0.15, atol=0)


def test_turned_inputs_and_turned_weights_have_the_same_density():
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    x, mlp = rows(), network().double()
    before = EmpCovPrior().start(mlp, table(x), Run(0)).energy(mlp)
    with torch.no_grad():
        mlp.features[0].weight.copy_(mlp.features[0].weight @ turn.T)
    after = EmpCovPrior().start(mlp, table((x.double() @ turn.T).float()), Run(0)).energy(mlp)
    assert_close(after, before, rtol=1e-5, atol=0)


@pytest.mark.parametrize("include_bias", [False, True])
def test_pushed_noise_has_the_priors_covariance_and_pull_is_its_transpose(include_bias):
    mlp = network().double()
    prior = EmpCovPrior(include_bias=include_bias).start(mlp, table(rows()), Run(0))
    found = prior.pieces[0]
    v, g = ({name: torch.randn_like(p) for name, p in mlp.named_parameters()} for _ in range(2))
    pushed, pulled = prior.push(v), prior.pull(g)
    assert_close(sum((pushed[n] * g[n]).sum() for n in g), sum((v[n] * pulled[n]).sum() for n in g))
    assert {n: t.shape for n, t in pushed.items()} == {n: p.shape for n, p in mlp.named_parameters()}
    with torch.no_grad():
        for name, parameter in mlp.named_parameters():
            parameter.copy_(pushed[name])
    assert_close(found.energy(mlp), 0.5 * sum(v[name].square().sum() for name in found.names))


def test_under_a_posterior_the_energy_is_an_expectation():
    mlp = MeanField(init_scale=0.5)(network())
    found = piece(mlp, table(rows()), EmpCovPrior(alpha=1.0, eps=0.1))
    layer = mlp.features[0]
    assert isinstance(layer, GaussianWeights)
    torch.manual_seed(0)
    drawn = layer.weight + layer.weight_std * torch.randn(4000, *layer.weight.shape)
    energies = 0.5 * torch.einsum("soi,ij,soj->s", drawn, found.precision[0].float(), drawn).detach()
    error = float(energies.std()) / math.sqrt(len(energies))
    assert abs(float(found.energy(mlp).detach() - energies.mean())) < 4 * error


def test_members_that_scale_their_inputs_share_the_plain_inputs_covariance():
    x = rows()
    plain = network()
    members = BatchEnsemble(num_members=3)(plain)
    expected = piece(plain, table(x), EmpCovPrior())
    found = piece(members, table(x), EmpCovPrior())
    assert_close(found.covariance, expected.covariance)


def test_members_that_read_several_inputs_at_once_see_different_rows():
    """Side by side, one row twice would make half of the directions dead."""
    task = table(rows(400))
    found = piece(MIMO(num_members=2)(network()), task, EmpCovPrior(alpha=1.0, eps=1e-6)).covariance[0]
    own = piece(network(), task, EmpCovPrior(alpha=1.0, eps=1e-6)).covariance[0]
    assert_close(found[:4, :4], own)
    assert float(found[:4, 4:].abs().max()) < 0.3 * float(own.abs().max())


@pytest.mark.parametrize("style", ["lenet", "resnet", "foreign", "tokens"])
def test_it_finds_the_first_convolution_of_any_network(style):
    net = made(style, task=IMAGES)
    first = next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    assert EmpCovPrior().start(net, IMAGES, Run(0)).pieces[0].names == (f"{first}.weight",)


def test_a_linear_model_has_it_on_its_head():
    linear = Network(nn.Identity(), nn.Linear(4, 3), SIGNATURE, width=4)
    assert EmpCovPrior().start(linear, table(rows()), Run(0)).pieces[0].names == ("head.weight",)


def test_what_has_no_weight_of_its_own_is_refused():
    tuned = SelfTuning()(LeNet()(IMAGES.signature))
    with pytest.raises(CannotCompose, match="hyper-parameters"):
        EmpCovPrior().start(tuned, IMAGES, Run(0))
    computed = network()
    nn.utils.parametrizations.weight_norm(computed.features[0])
    with pytest.raises(CannotCompose, match="computed from others"):
        EmpCovPrior().start(computed, table(rows()), Run(0))
    biasless = network()
    biasless.features[0] = nn.Linear(4, 5, bias=False)
    with pytest.raises(CannotCompose, match="no bias"):
        EmpCovPrior(include_bias=True).start(biasless, table(rows()), Run(0))


def test_dead_inputs_get_no_likelihood_gradient_and_the_prior_alone_moves_their_weights():
    x = rows()
    x[:, 3] = 0.0
    mlp, task = network(), table(x)
    batch = next(task.train.ordered(50))
    network_loss(Forward(mlp, batch)).backward()
    weight = mlp.features[0].weight
    assert not weight.grad[:, 3].any()
    mlp.zero_grad()
    EmpCovPrior(alpha=1.0, eps=0.25).start(mlp, task, Run(0))(network_loss, Forward(mlp, batch)).backward()
    assert_close(weight.grad[:, 3], weight[:, 3].detach() / 0.25 / 50)


@pytest.mark.parametrize("changes", [{"alpha": 0.0}, {"eps": -1.0}, {"eps": math.nan}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="EmpCovPrior"):
        EmpCovPrior(**changes)


def test_a_dry_run_does_not_take_its_few_rows_for_all():
    """Eight rows leave most of twenty directions without variance; fifty do not."""
    task, spec = table(rows(50, width=20)), EmpCovPrior(eps=0.0)
    mlp = MLP(hidden=(5,))(task.signature)
    assert piece(mlp, task.dry(), spec).variances.min() > 0
    singular = table(torch.cat([task.train.x, torch.zeros(50, 1)], 1))
    with pytest.raises(CannotCompose, match="along 1 of 21 directions"):
        piece(MLP(hidden=(5,))(singular.signature), singular, spec)
