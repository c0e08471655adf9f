"""Laplace against Bayesian linear regression in closed form, and against Jacobians by automatic differentiation."""

import math

import pytest
import torch
from networks import Noisy, Scaled
from posthoc.small import blobs, line, mlp, state, trained
from torch import Tensor, nn
from torch.func import functional_call, jacrev

import levelhead as lh
from levelhead.backbones.mlp import MLP
from levelhead.likelihood import Categorical, Gaussian
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network, build
from levelhead.posthoc.laplace import HeadLaplace, Laplace
from levelhead.predictor import Ensemble, Point
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.mean_field import MeanField
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.surgeries.rank1_bnn import Rank1BNN
from levelhead.tasks.function import function
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

STRUCTURES = ["full", "kronecker", "diagonal"]
F64 = torch.float64


def fitted_point(task: Task, seed: int = 0) -> Point:
    return trained(mlp(task, seed=seed, dtype=F64), task)


def head_jacobian(point: Point, x: Tensor) -> Tensor:
    """d outputs / d (weight, bias) of the head, bias last in each output's row: (row, output, parameter)."""
    head = {"weight": point.network.head.weight.detach(), "bias": point.network.head.bias.detach()}
    z = point.network.embed(x.to(F64))[0].detach()
    j = jacrev(lambda p: functional_call(point.network.head, p, (z,)))(head)
    return torch.cat([j["weight"], j["bias"].unsqueeze(-1)], dim=-1).flatten(2)


def autodiff_ggn(point: Point, task: Task) -> Tensor:
    """sum_n J' Lambda J, Lambda the Hessian of the divergence: nothing of it shares code with the library's."""
    j = head_jacobian(point, task.train.x)
    outputs = point.outputs(task.train.x.to(F64))[0].detach()
    total = torch.zeros(j.shape[-1], j.shape[-1], dtype=F64)
    for n in range(len(j)):
        curve = torch.autograd.functional.hessian(
            lambda q, n=n: task.likelihood.example_divergence(outputs[None, n : n + 1], q[None, None]).sum(), outputs[n]
        )
        total += j[n].T @ curve @ j[n]
    return total


def theta(point: Point) -> Tensor:
    head = point.network.head
    return torch.cat([head.weight, head.bias[:, None]], dim=1).detach().flatten()


@pytest.mark.parametrize("task", [blobs(), line(num_targets=2)], ids=["classes", "targets"])
def test_full_posterior_is_that_of_the_autodiff_ggn(task):
    point = fitted_point(task)
    fitted = Laplace(structure="full", prior_precision=0.7)(point, task)
    assert isinstance(fitted, HeadLaplace)
    precision = autodiff_ggn(point, task) + 0.7 * torch.eye(len(theta(point)), dtype=F64)
    x = task.test.x
    j = head_jacobian(point, x)
    covariance = j @ torch.linalg.inv(precision) @ j.mT
    reading_z = torch.cat([point.network.embed(x.to(F64))[0], torch.ones(len(x), 1, dtype=F64)], dim=1)
    (curvature,) = fitted.curvatures()
    torch.testing.assert_close(curvature.covariance(reading_z, prior=0.7), covariance, rtol=1e-6, atol=1e-9)
    log_likelihood = -task.likelihood.member_loss(
        point.outputs(task.train.x.to(F64)).detach(),
        task.train.y.to(F64) if task.train.y.is_floating_point() else task.train.y,
    ).sum()
    expected = log_likelihood - 0.5 * (
        torch.logdet(precision) - len(theta(point)) * math.log(0.7) + 0.7 * theta(point).square().sum()
    )
    assert fitted.evidence == pytest.approx(float(expected), rel=1e-9)


def test_diagonal_is_the_diagonal_of_the_autodiff_ggn():
    task = blobs()
    point = fitted_point(task)
    (curvature,) = Laplace(structure="diagonal")(point, task).curvatures()
    torch.testing.assert_close(curvature.values.flatten(), autodiff_ggn(point, task).diagonal())


def bayesian_linear_regression(prior: float, noise: float) -> tuple[Task, Point, Tensor, Tensor]:
    """A linear network at its exact posterior mean, with constant noise; the design with a column of ones; y."""
    torch.manual_seed(0)
    x = torch.randn(30, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.4 + noise * torch.randn(30, 1)
    places = {"train": slice(0, 20), "val": slice(20, 23), "calibration": slice(23, 27), "test": slice(27, 30)}
    splits = [Split(name, x[rows], y[rows]) for name, rows in places.items()]
    task = Task("linear", *splits, likelihood=Gaussian(1, (0.0,), (1.0,)))
    design = torch.cat([task.train.x, torch.ones(20, 1)], dim=1).to(F64)
    target = task.train.y.to(F64)
    mean = torch.linalg.solve(design.T @ design / noise**2 + prior * torch.eye(4), design.T @ target / noise**2)
    network = Network(nn.Identity(), nn.Linear(3, 2), task.signature, width=3).to(F64)
    with torch.no_grad():
        network.head.weight[0], network.head.bias[0] = mean[:3, 0], mean[3, 0]
        network.head.weight[1] = 0
        network.head.bias[1] = math.log(math.expm1(noise**2 - 1e-6))  # softplus of it is the noise's variance
    return task, Point(network), design, target


@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_predictions_are_those_of_bayesian_linear_regression(structure):
    prior, noise = 0.3, 0.5
    task, point, design, _ = bayesian_linear_regression(prior, noise)
    fitted = Laplace(structure=structure, prior_precision=prior)(point, task)
    h = design.T @ design / noise**2
    if structure == "kronecker":  # which gives the bias a block of its own
        h[-1, :-1] = h[:-1, -1] = 0
    test = torch.cat([task.test.x, torch.ones(3, 1)], dim=1).to(F64)
    variance = (test @ torch.linalg.inv(h + prior * torch.eye(4)) * test).sum(-1) + noise**2
    belief = fitted(task.test.x.to(F64))
    torch.testing.assert_close(belief.variance[:, 0], variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(belief.epistemic(), variance - noise**2, rtol=1e-9, atol=0)
    torch.testing.assert_close(belief.mean, point(task.test.x.to(F64)).mean)


def test_the_evidence_of_a_linear_gaussian_model_is_exact():
    prior, noise = 0.3, 0.5
    task, point, design, y = bayesian_linear_regression(prior, noise)
    fitted = Laplace(structure="full", prior_precision=prior)(point, task)
    covariance = design @ design.T / prior + noise**2 * torch.eye(20)
    mean_part = torch.distributions.MultivariateNormal(torch.zeros(20, dtype=F64), covariance).log_prob(y[:, 0])
    # What the noise's own parameters add, in which the model is not linear: the Laplace term by hand.
    raw = point.network.head.bias[1].detach()
    weight = raw.sigmoid() ** 2 / (2 * noise**4)
    precision = weight * design.T @ design + prior * torch.eye(4)
    noise_part = -0.5 * (torch.logdet(precision) - 4 * math.log(prior) + prior * raw**2)
    assert fitted.evidence == pytest.approx(float(mean_part + noise_part), rel=1e-9)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_chosen_prior_has_the_largest_evidence(structure):
    task = blobs()
    point = fitted_point(task)
    fitted = Laplace(structure=structure)(point, task)
    evidence = [
        Laplace(structure=structure, prior_precision=p)(point, task).evidence for p in (1e-3, 0.1, 1.0, 10.0, 1e3)
    ]
    assert fitted.evidence >= max(evidence)
    # MacKay's fixed point: prior |theta|^2 = number of parameters - prior trace(P^-1)
    (curvature,) = fitted.curvatures()
    units = torch.eye(theta(point).numel(), dtype=F64).reshape(-1, 3, 7)
    inverse = curvature.solve(units, prior=fitted.prior_precision).flatten(1)
    determined = len(units) - fitted.prior_precision * inverse.trace()
    assert fitted.prior_precision * float(theta(point).square().sum()) == pytest.approx(float(determined), rel=1e-4)


def test_the_calibrated_prior_is_the_best_of_a_grid():
    task = blobs()
    point = fitted_point(task)
    point.network.head.weight.data *= 5
    fitted = Laplace(prior_precision="calibration")(point, task)

    def loss(prior: float) -> float:
        belief = Laplace(prior_precision=prior)(point, task)(task.calibration.x.to(F64))
        return float(held_out_nll(belief, task.calibration.y).detach())

    assert loss(fitted.prior_precision) <= min(loss(p) for p in torch.logspace(-4, 6, 41).tolist()) + 1e-6


@pytest.mark.parametrize("link", ["probit", "mackay", "mc"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_tight_posterior_is_the_point(link, structure):
    task = blobs()
    point = fitted_point(task)
    x = task.test.x.to(F64)
    fitted = Laplace(structure=structure, prior_precision=1e14, link=link, num_draws=3)(point, task)
    torch.testing.assert_close(fitted(x).log_probs, point(x).log_probs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_draws_of_functions_have_the_covariance_of_the_outputs(structure):
    task = line()
    point = fitted_point(task)
    x = task.test.x[:4].to(F64)
    fitted = Laplace(structure=structure, prior_precision=1.0, link="mc", num_draws=20_000)(point, task)
    closed = Laplace(structure=structure, prior_precision=1.0)(point, task)
    drawn = fitted(x).epistemic()
    expected = closed(x).total() - point(x).total()
    torch.testing.assert_close(drawn, expected, rtol=0.05, atol=0)


def test_draws_repeat_and_do_not_depend_on_the_batch():
    task = blobs()
    fitted = Laplace(link="mc", num_draws=5)(fitted_point(task), task)
    x = task.test.x.to(F64)
    assert fitted(x).num_members == 5
    assert torch.equal(fitted(x).logits, fitted(x).logits)
    torch.testing.assert_close(fitted(x).logits[:, 3:5], fitted(x[3:5]).logits)
    assert (fitted(x).epistemic() > 0).all()
    assert fitted.stochastic
    assert not torch.equal(fitted.with_noise(None)(x).logits, fitted(x).logits)
    assert not Laplace()(fitted_point(task), task).stochastic


def test_links_approach_draws():
    task = blobs()
    point = fitted_point(task)
    x = task.test.x.to(F64)
    drawn = Laplace(structure="full", link="mc", num_draws=20_000)(point, task)(x).probs

    def distance(link: str) -> float:
        probs = Laplace(structure="full", link=link)(point, task)(x).probs
        return float((probs - drawn).detach().abs().sum(-1).mean() / 2)

    assert distance("mackay") < 0.1
    assert distance("probit") < 0.15
    assert distance("bridge") < 0.35


def test_probit_softens_and_keeps_the_label_of_a_confident_row():
    task = blobs()
    point = fitted_point(task)
    belief = Laplace()(point, task)(task.test.x.to(F64))
    assert (belief.confidence <= point(task.test.x.to(F64)).confidence + 1e-9).all()


def test_members_have_a_posterior_each():
    task = blobs()
    torch.manual_seed(0)
    features = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), Scaled(2, 6))
    network = Network(features, nn.Linear(6, 3), task.signature, width=6).declare(num_members=2).to(F64)
    point = trained(network, task, steps=20)
    fitted = Laplace(structure="full", prior_precision=1.0)(point, task)
    assert [t.shape[0] for t in fitted.factors.values()] == [2, 2]
    for member in range(2):
        alone = Network(nn.Identity(), network.head, task.signature, width=6)
        z = network.embed(task.train.x.to(F64))[member].detach()
        split = Split("train", z.float(), task.train.y)
        single = Laplace(structure="full", prior_precision=1.0)(
            Point(alone), Task("z", split, split, split, split, likelihood=task.likelihood, known_overlaps=True)
        )
        ours, theirs = fitted.curvatures()[member], single.curvatures()[0]
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-4)
    assert fitted(task.test.x.to(F64)).num_members == 2
    assert Laplace(link="mc", num_draws=3)(point, task)(task.test.x.to(F64)).num_members == 6


def test_samples_share_the_posterior_of_their_member():
    task = blobs()
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(2, 6), Noisy()), nn.Linear(6, 3), task.signature, width=6)
    fitted = Laplace(prior_precision=1.0)(Point(network.declare(num_samples=4), noise=1), task)
    belief = fitted(task.test.x)
    assert belief.num_members == 4
    assert torch.equal(belief.logits, fitted(task.test.x).logits)
    outputs = fitted.network(task.test.x)
    assert outputs.shape[0] == 1  # the fit left the network as it was


def test_pixels_and_void():
    torch.manual_seed(0)
    x = torch.rand(12, 2, 3, 3)
    y = torch.randint(3, (12, 3, 3))
    y[::2, 0] = 255
    split = Split("train", x, y)
    task = Task("pixels", split, split, split, split, likelihood=Categorical(3, void=255), known_overlaps=True)
    features = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh())
    network = Network(features, nn.Linear(4, 3), task.signature, width=4, channel=1)
    for link in ("probit", "mackay", "mc"):
        fitted = Laplace(structure="full", prior_precision="calibration", link=link, num_draws=2)(Point(network), task)
        assert fitted(x).probs.shape == (12, 3, 3, 3)
    z = network.embed(x)[0].detach()[y != 255].double()
    p = network(x)[0].detach()[y != 255].double().softmax(-1)
    z = torch.cat([z, torch.ones(len(z), 1)], dim=1)
    j = torch.stack([torch.kron(torch.eye(3, dtype=F64), row[None]) for row in z])
    ggn = torch.einsum("n c p, n c d, n d q -> p q", j, torch.diag_embed(p) - p[:, :, None] * p[:, None], j)
    torch.testing.assert_close(fitted.curvatures()[0].values.sum(), ggn.trace(), rtol=1e-5, atol=0)


def test_a_random_feature_head_is_a_linear_head_of_its_features():
    task = blobs()
    point = trained(RandomFeatureHead(rank=20)(mlp(task)), task, steps=20)
    fitted = Laplace(structure="full", prior_precision=1.0)(point, task)
    phi = point.network.head.features(point.network.embed(task.train.x)[0]).double().detach()
    p = point(task.train.x).probs.double().detach()
    expected = (phi.square().sum(-1) * (p * (1 - p)).sum(-1)).sum()
    torch.testing.assert_close(fitted.curvatures()[0].values.sum(), expected, rtol=1e-5, atol=0)


def test_the_argument_is_untouched_and_the_task_may_be_sealed():
    task = blobs()
    point = fitted_point(task)
    before = state(point)
    Laplace(prior_precision="calibration")(point, task.sealed())
    assert all(torch.equal(value, before[name]) for name, value in point.state_dict().items())
    assert not any(module._forward_pre_hooks for module in point.modules())
    assert all(parameter.requires_grad for parameter in point.parameters())


@pytest.mark.parametrize("link", ["probit", "mackay", "bridge", "mc"])
def test_it_is_differentiable_in_x(link):
    task = blobs()
    fitted = Laplace(link=link, num_draws=3)(fitted_point(task), task)
    x = task.test.x[:3].to(F64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: fitted(x).log_probs, x)


@pytest.mark.parametrize("options", [{}, {"structure": "full", "link": "mc"}, {"structure": "diagonal"}], ids=str)
def test_saved_and_loaded_it_predicts_the_same_bits(tmp_path, options):
    task = blobs()
    recipe = lh.Recipe(backbone=MLP(hidden=(5,)), sampler=SGD(epochs=1), posthoc=(Laplace(num_draws=4, **options),))
    fitted = recipe.fit(task)
    lh.save(fitted, tmp_path / "laplace")
    again = lh.load(tmp_path / "laplace")
    assert again.evidence == fitted.evidence
    assert torch.equal(again(task.test.x).logits, fitted(task.test.x).logits)


def test_moving_to_another_type_keeps_the_posterior_precise():
    task = blobs()
    fitted = Laplace()(fitted_point(task), task)
    x = task.test.x
    expected = fitted(x.to(F64)).probs
    single = fitted.float()
    assert {t.dtype for t in single.factors.values()} == {F64}
    assert single(x).probs.dtype == torch.float32
    torch.testing.assert_close(single(x).probs, expected.float(), atol=1e-5, rtol=1e-4)


def test_an_ensemble_is_told_to_hold_it_inside():
    task = blobs()
    with pytest.raises(CannotCompose, match=r"DeepEnsemble\(member=Recipe\(..., posthoc=\(Laplace\(\),\)\)\)"):
        Laplace()(Ensemble([fitted_point(task)]), task)


class Doubling(nn.Module):
    """A head that does something behind its linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, z: Tensor) -> Tensor:
        return 2 * self.linear(z)


@pytest.mark.parametrize("head", [nn.Identity(), Doubling()], ids=["none", "not last"])
def test_heads_that_are_no_linear_layer_are_refused(head):
    task = blobs()
    width = 3 if isinstance(head, nn.Identity) else 6
    network = Network(nn.Linear(2, width), head, task.signature, width=width)
    with pytest.raises(CannotCompose, match="linear"):
        Laplace()(Point(network), task)


@pytest.mark.parametrize("subset", ["head", "all"])
@pytest.mark.parametrize("surgery", [BatchEnsemble, Rank1BNN, MeanField])
def test_surgeries_in_the_head_are_told_to_leave_it_and_that_works(surgery, subset):
    task = blobs()
    whole = build(MLP(hidden=(5, 5)), (surgery(),), task.signature)
    advice = "within='features'" if subset == "all" or surgery is not MeanField else "leave the head as it is"
    with pytest.raises(CannotCompose, match=advice):
        Laplace(subset=subset)(Point(whole), task)
    features = build(MLP(hidden=(5, 5)), (surgery(within="features"),), task.signature)
    assert Laplace()(Point(features), task)(task.test.x).probs.isfinite().all()


def test_heads_made_from_hyper_parameters_are_not_told_of_an_argument_that_is_not_there():
    task = blobs()
    network = build(MLP(hidden=(5,)), (HyperBatch(num_members=2),), task.signature)
    with pytest.raises(CannotCompose, match=r"Leave Laplace\(\) out.*batch_ensemble\(within='features'\)"):
        Laplace()(Point(network), task)


@pytest.mark.parametrize("wanted", [{}, {"kind": "empirical"}, {"subset": "all"}], ids=str)
def test_targets_without_noise_are_told_what_knows_them(wanted):
    task = function("levy")
    with pytest.raises(CannotCompose, match="deep_ensemble, mc_dropout or nomu"):
        Laplace(**wanted)(Point(build(MLP(hidden=(5,)), (), task.signature)), task)


@pytest.mark.parametrize("link", ["mackay", "bridge"])
def test_links_to_classes_are_refused_for_regression(link):
    task = line()
    with pytest.raises(CannotCompose, match="mc"):
        Laplace(link=link)(Point(mlp(task)), task)


@pytest.mark.parametrize(
    "wrong",
    [{"subset": "tail"}, {"structure": "lowrank"}, {"link": "logit"}, {"prior_precision": "guess"},
     {"prior_precision": 0.0}, {"prior_precision": ()}, {"prior_precision": math.inf}, {"subset": ()},
     {"num_draws": 0}],
    ids=str,
)  # fmt: skip
def test_combinations_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Laplace(**wrong)


@pytest.mark.parametrize("name, value", [("num_draws", 2.5), ("rank", True)])
def test_counts_that_are_no_whole_numbers_are_refused(name, value):
    spec = Laplace()
    object.__setattr__(spec, name, value)  # past the shape checks of the test run, which users do not have
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1, got {value}"):
        spec.__post_init__()


def test_confidence_far_away_stays_below_one():
    task = blobs()
    network = Network(
        nn.Sequential(nn.Linear(2, 20, bias=False), nn.ReLU()), nn.Linear(20, 3), task.signature, width=20
    )
    point = trained(network, task)
    far = 1e4 * task.test.x
    assert point(far).confidence.mean() > 0.999
    assert Laplace()(point, task)(far).confidence.mean() < 0.99
