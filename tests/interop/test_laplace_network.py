"""Laplace over all weights beside laplace-torch, in float64 on one network: curvature, evidence, predictions."""

import copy
import math

import pytest
import torch
from posthoc.small import blobs, line, mlp, trained
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.resnet import ResNet
from levelhead.network import build
from levelhead.posthoc.laplace import Laplace, NetworkLaplace
from levelhead.predictor import Point
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task

theirs = pytest.importorskip("laplace", reason="needs laplace-torch: make test-interop")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore"),  # theirs warn of torch.jit, of back-propagation and of themselves
]

F64 = torch.float64
STRUCTURES = {"full": "full", "kronecker": "kron", "diagonal": "diag"}
PRIOR = 0.7


def plain(point: Point) -> nn.Sequential:
    """The same weights as a Sequential, contiguous as theirs wants them."""
    network = copy.deepcopy(point.network)
    model = nn.Sequential(*network.features, network.head).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


def rival(point: Point, x: Tensor, y: Tensor, structure: str, likelihood: str = "classification", **options):
    posterior = theirs.Laplace(
        plain(point),
        likelihood,
        subset_of_weights="all",
        hessian_structure=STRUCTURES[structure],
        prior_precision=PRIOR,
        **options,
    )
    posterior.fit(DataLoader(TensorDataset(x.to(F64), y), batch_size=16))
    return posterior


def ours(point: Point, task: Task, structure: str, **options) -> NetworkLaplace:
    fitted = Laplace(**{"subset": "all", "structure": structure, "prior_precision": PRIOR} | options)(point, task)
    assert isinstance(fitted, NetworkLaplace)
    return fitted


def dense(fitted: NetworkLaplace) -> Tensor:
    value = fitted.curvature()
    return value @ torch.eye(value.selection.size, dtype=F64)


@pytest.fixture(scope="module")
def classes() -> tuple[Task, Point]:
    task = blobs((60, 12, 30, 20), num_classes=4)
    return task, trained(mlp(task, dtype=F64), task)


@pytest.fixture(scope="module")
def images() -> tuple[Task, Point]:
    """Convolutions without norms, on pixels."""
    task = stripes(n=24, size=12)
    network = build(LeNet(), (), task.signature).to(F64)
    return task, Point(network)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_curvature_agrees(classes, structure):
    task, point = classes
    other = rival(point, task.train.x, task.train.y, structure)
    found = dense(ours(point, task, structure))
    if structure == "kronecker":  # blocks, each the product of its factors
        blocks = zip(other.H.eigenvectors, other.H.eigenvalues, strict=True)
        factors = [[u @ v.diag() @ u.T for u, v in zip(*block, strict=True)] for block in blocks]
        expected = torch.block_diag(*[torch.kron(*f) if len(f) == 2 else f[0] for f in factors])
    else:
        expected = other.H if structure == "full" else torch.diag(other.H)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "network, structure",  # a full matrix of LeNet's 15,031 weights would take theirs 1.8 GB, and ours refuses it
    [*(("classes", structure) for structure in STRUCTURES), ("images", "kronecker"), ("images", "diagonal")],
)
def test_evidence_and_predictions_agree(request, network, structure):
    task, point = request.getfixturevalue(network)
    pixels = 255 if network == "images" else 1
    x = (task.train.x / pixels).to(F64)
    other = rival(point, x, task.train.y, structure)
    fitted = ours(point, task, structure)
    assert fitted.evidence == pytest.approx(float(other.log_marginal_likelihood()), rel=1e-5)
    for prior in (0.01, 30.0):
        now = float(other.log_marginal_likelihood(prior_precision=torch.tensor(prior, dtype=F64)))
        assert ours(point, task, structure, prior_precision=prior).evidence == pytest.approx(now, rel=1e-5)
    other.prior_precision = PRIOR
    test = (task.test.x / pixels).to(F64)[:8]
    for link in ("probit", "bridge"):
        expected = other(test, pred_type="glm", link_approx=link)
        found = ours(point, task, structure, link=link)(test).probs
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_regression_with_a_known_noise_agrees(structure):
    """Theirs has one constant noise: ours gets a head whose second output is that constant, and leaves it alone."""
    task = line()
    point = trained(mlp(task, dtype=F64), task, steps=50)
    noise = 0.4
    with torch.no_grad():
        point.network.head.weight[1] = 0
        point.network.head.bias[1] = math.log(math.expm1(noise**2 - 1e-6))
    shift, scale = task.likelihood.shift[0], task.likelihood.scale[0]
    mean = copy.deepcopy(point)
    mean.network.head = nn.Linear(6, 1, dtype=F64)
    mean.network.head.weight.data = point.network.head.weight[:1].data
    mean.network.head.bias.data = point.network.head.bias[:1].data
    y = (task.train.y.to(F64) - shift) / scale
    other = rival(mean, task.train.x, y, structure, "regression", sigma_noise=noise)
    x = task.test.x.to(F64)
    f_mu, f_var = other(x)[:2]
    # Of features alone the noise's output knows nothing, for its weights are zero: without the head the two are one.
    belief = ours(point, task, structure)(x)
    torch.testing.assert_close(belief.mean, f_mu * scale + shift, rtol=1e-5, atol=1e-7)
    expected = (f_var[..., 0] + noise**2) * scale**2
    torch.testing.assert_close(belief.variance, expected, rtol=1e-5, atol=1e-7)


def test_kronecker_over_batch_norm_where_theirs_refuses():
    task = stripes(n=24, size=12)
    point = Point(build(ResNet(depth=8, width=4), (), task.signature).to(F64))
    x = (task.train.x / 255).to(F64)
    with pytest.raises(Exception, match=r"(?i)supported|layer|parameter"):
        rival(point, x, task.train.y, "kronecker")
    fitted = ours(point, task, "kronecker")
    assert fitted((task.test.x / 255).to(F64)).log_probs.isfinite().all()


@pytest.mark.parametrize("structure", ["kronecker", "diagonal"])
def test_without_the_norms_tensors_a_batch_norm_network_agrees(structure):
    """Theirs takes it once the norms are frozen; ours gets patterns that leave them out."""
    task = stripes(n=24, size=12)
    point = Point(build(ResNet(depth=8, width=4), (), task.signature).to(F64))
    model = copy.deepcopy(point)
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
            point.network.get_submodule(
                next(name for name, m in model.network.named_modules() if m is module)
            ).requires_grad_(False)
    x = (task.train.x / 255).to(F64)
    other = rival(model, x, task.train.y, structure)
    fitted = ours(point, task, structure)
    assert fitted.evidence == pytest.approx(float(other.log_marginal_likelihood()), rel=1e-5)
    test = (task.test.x / 255).to(F64)[:8]
    expected = other(test, pred_type="glm", link_approx="probit")
    torch.testing.assert_close(fitted(test).probs, expected, rtol=1e-5, atol=1e-7)
