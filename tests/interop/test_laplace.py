"""Last-layer Laplace beside laplace-torch, in float64 on the same network: curvature, evidence, predictions to 1e-5."""

import copy
import math

import pytest
import torch
from posthoc.small import blobs, line, mlp, trained
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from levelhead.posthoc.laplace import HeadLaplace, Laplace
from levelhead.predictor import Point
from levelhead.tasks.task import Task

theirs = pytest.importorskip("laplace", reason="needs laplace-torch: make test-interop")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore"),  # theirs warn of torch.jit, of back-propagation and of themselves
]

F64 = torch.float64
STRUCTURES = {"full": "full", "kronecker": "kron", "diagonal": "diag"}
PRIOR = 0.7


def rival(point: Point, task: Task, structure: str, likelihood: str, y: Tensor):
    """Their posterior of the last layer of the same weights."""
    network = copy.deepcopy(point.network)
    model = nn.Sequential(*network.features, network.head)
    posterior = theirs.Laplace(
        model,
        likelihood,
        subset_of_weights="last_layer",
        hessian_structure=STRUCTURES[structure],
        prior_precision=PRIOR,
    )
    posterior.fit(DataLoader(TensorDataset(task.train.x.to(F64), y), batch_size=16))
    return posterior


def ours(point: Point, task: Task, structure: str, **options) -> HeadLaplace:
    fitted = Laplace(structure=structure, prior_precision=PRIOR, **options)(point, task)
    assert isinstance(fitted, HeadLaplace)
    return fitted


@pytest.fixture(scope="module")
def classes() -> tuple[Task, Point]:
    task = blobs((60, 12, 30, 20), num_classes=4)
    return task, trained(mlp(task, dtype=F64), task)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_evidence_agrees(classes, structure):
    task, point = classes
    other = rival(point, task, structure, "classification", task.train.y)
    assert ours(point, task, structure).evidence == pytest.approx(float(other.log_marginal_likelihood()), rel=1e-5)
    for prior in (0.01, 30.0):
        fitted = Laplace(structure=structure, prior_precision=prior)(point, task)
        theirs_now = float(other.log_marginal_likelihood(prior_precision=torch.tensor(prior, dtype=F64)))
        assert fitted.evidence == pytest.approx(theirs_now, rel=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("link", ["probit", "bridge"])
def test_predictions_agree(classes, structure, link):
    task, point = classes
    other = rival(point, task, structure, "classification", task.train.y)
    x = task.test.x.to(F64)
    expected = other(x, pred_type="glm", link_approx=link)
    torch.testing.assert_close(ours(point, task, structure, link=link)(x).probs, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_covariance_of_the_outputs_agrees(classes, structure):
    task, point = classes
    other = rival(point, task, structure, "classification", task.train.y)
    x = task.test.x.to(F64)
    _, expected = other._glm_predictive_distribution(x)
    (curvature,) = ours(point, task, structure).curvatures()
    z = torch.cat([point.network.embed(x)[0], torch.ones(len(x), 1, dtype=F64)], dim=1)
    torch.testing.assert_close(curvature.covariance(z, prior=PRIOR), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_regression_with_a_known_noise_agrees(structure):
    """Theirs has one constant noise: ours gets a head whose second output is that constant."""
    task = line()
    point = trained(mlp(task, dtype=F64), task, steps=50)
    noise = 0.4
    with torch.no_grad():
        point.network.head.weight[1] = 0
        point.network.head.bias[1] = math.log(math.expm1(noise**2 - 1e-6))
    shift, scale = task.likelihood.shift[0], task.likelihood.scale[0]
    mean = copy.deepcopy(point.network)
    mean.head = nn.Linear(6, 1, dtype=F64)
    mean.head.weight.data, mean.head.bias.data = point.network.head.weight[:1].data, point.network.head.bias[:1].data
    model = nn.Sequential(*mean.features, mean.head)
    other = theirs.Laplace(
        model, "regression", subset_of_weights="last_layer", hessian_structure=STRUCTURES[structure],
        prior_precision=PRIOR, sigma_noise=noise,
    )  # fmt: skip
    y = (task.train.y.to(F64) - shift) / scale
    other.fit(DataLoader(TensorDataset(task.train.x.to(F64), y), batch_size=16))
    x = task.test.x.to(F64)
    f_mu, f_var = other(x)[:2]
    belief = ours(point, task, structure)(x)
    torch.testing.assert_close(belief.mean, f_mu * scale + shift, rtol=1e-5, atol=1e-7)
    expected = (f_var[..., 0] + noise**2) * scale**2
    torch.testing.assert_close(belief.variance, expected, rtol=1e-5, atol=1e-7)
