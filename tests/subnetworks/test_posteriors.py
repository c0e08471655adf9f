"""Laplace over a subnetwork: blocks, limits, samples and memory, against dense matrices by plain autograd."""

from functools import cache

import pytest
import torch
from posthoc.small import blobs, line, mlp, trained
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import levelhead as lh
from levelhead.curvature.network_laplace import NetworkLaplace
from levelhead.network import Network
from levelhead.posthoc.laplace import Laplace
from levelhead.predictor import Point
from levelhead.subnetworks.contribution import Contribution
from levelhead.subnetworks.last_layer import LastLayer
from levelhead.subnetworks.magnitude import Magnitude
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.text import parse, to_text
from levelhead.types import CannotCompose
from levelhead.values import from_json, to_json

TASK, LINE = blobs(), line()
PRIOR = 0.7


class These:
    """A rule that says these places."""

    def __init__(self, places: torch.Tensor) -> None:
        self.places = places

    def __call__(self, network: Network, task: Task) -> torch.Tensor:
        return self.places


@cache
def point(task: Task = TASK) -> Point:
    return Point(trained(mlp(task, width=5), task, steps=40).network.double())


def over(places: torch.Tensor, task: Task = TASK, **fields) -> NetworkLaplace:
    fields = {"structure": "full", "prior_precision": PRIOR} | fields
    return Laplace(subset=These(places), **fields)(point(task), task.sealed())


def size(task: Task = TASK) -> int:
    return sum(p.numel() for p in point(task).parameters())


def some(count: int, seed: int = 0, task: Task = TASK) -> torch.Tensor:
    order = torch.randperm(size(task), generator=torch.Generator().manual_seed(seed))
    return order[:count].sort().values


@cache
def dense() -> torch.Tensor:
    """The full generalised Gauss-Newton matrix, in the order of parameters()."""
    network, x = point().network, TASK.train.x.double()
    outputs = network(x)[0]
    rows = []
    for f in outputs.flatten():
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(f, network.parameters(), retain_graph=True)]))
    J, p = torch.stack(rows).reshape(len(x), -1, len(rows[0])), outputs.softmax(-1).detach()
    return torch.einsum("n c d, n c e, n e f -> d f", J, torch.diag_embed(p) - p[:, :, None] * p[:, None], J)


def variance(made: NetworkLaplace, x: torch.Tensor) -> torch.Tensor:
    """Of the function, for regression."""
    network = made.network
    belief = made(x)
    noise = network.likelihood.unstandardised(*network.likelihood.moments(network(x)))
    return (belief.variance - noise.variance).detach()


def test_over_all_parameters_it_is_full_laplace() -> None:
    every = over(torch.arange(size()))
    full = Laplace(subset="all", structure="full", prior_precision=PRIOR)(point(), TASK)
    x = TASK.test.x.double()
    torch.testing.assert_close(every(x).probs, full(x).probs, rtol=1e-9, atol=0)
    assert every.evidence == pytest.approx(full.evidence, rel=1e-9)
    theta = torch.randn(size(), dtype=torch.float64)
    torch.testing.assert_close(every.curvature() @ theta, dense() @ theta)


def test_over_the_last_layer_it_is_last_layer_laplace() -> None:
    last = Laplace(subset=LastLayer(), structure="full", prior_precision=PRIOR)(point(), TASK)
    head = Laplace(subset="head", structure="full", prior_precision=PRIOR)(point(), TASK)
    x = TASK.test.x.double()
    torch.testing.assert_close(last(x).probs, head(x).probs, rtol=1e-9, atol=0)
    assert last.evidence == pytest.approx(head.evidence, rel=1e-9)


def test_its_covariance_is_the_conditional_one() -> None:
    places = some(13)
    curvature = over(places).curvature()
    eye = torch.eye(13, dtype=torch.float64)
    block = dense()[places][:, places]
    torch.testing.assert_close(curvature @ eye, block)
    covariance = curvature.solve(eye, prior=torch.full((len(curvature.selection.sizes),), PRIOR, dtype=torch.float64))
    torch.testing.assert_close(covariance, torch.linalg.inv(block + PRIOR * eye))
    joint = torch.linalg.inv(dense() + PRIOR * torch.eye(size(), dtype=torch.float64))
    rest = torch.tensor([d for d in range(size()) if d not in places.tolist()])
    cross = joint[places][:, rest]
    conditional = joint[places][:, places] - cross @ torch.linalg.solve(joint[rest][:, rest], cross.T)
    torch.testing.assert_close(covariance, conditional)
    assert torch.linalg.eigvalsh(joint[places][:, places] - covariance).min() > -1e-12


def test_more_parameters_never_make_it_surer() -> None:
    order = torch.randperm(size(LINE), generator=torch.Generator().manual_seed(2))
    x = LINE.test.x.double()
    before = torch.zeros(len(x), 1, dtype=torch.float64)
    for count in (1, 4, 9, size(LINE)):
        found = variance(over(order[:count].sort().values, LINE), x)
        assert (found >= before - 1e-12).all()
        before = found
    assert (before > 0).all()


def test_the_mean_is_that_of_the_network_and_a_strong_prior_leaves_only_it() -> None:
    x = LINE.test.x.double()
    torch.testing.assert_close(over(some(6, task=LINE), LINE)(x).mean, point(LINE)(x).mean, rtol=1e-12, atol=0)
    tight = over(some(9), prior_precision=1e12)
    x = TASK.test.x.double()
    torch.testing.assert_close(tight(x).probs, point()(x).probs, rtol=1e-6, atol=0)


def test_draws_move_the_chosen_weights_alone_and_with_the_right_covariance() -> None:
    places = some(4)
    made = over(places, link="weights")
    draws = made.weight_draws(20_000)
    flat = {name: p.flatten() for name, p in made.network.named_parameters()}
    moved, start = [], 0
    for name, parameter in flat.items():
        own = places[(places >= start) & (places < start + len(parameter))] - start
        start += len(parameter)
        if name not in draws:
            assert not len(own)
            continue
        drawn = draws[name].flatten(1)
        others = torch.ones(len(parameter), dtype=torch.bool)
        others[own] = False
        assert torch.equal(drawn[:, others], parameter[others].expand(len(drawn), -1))
        moved.append(drawn[:, own] - parameter[own].detach())
    block = dense()[places][:, places] + PRIOR * torch.eye(4, dtype=torch.float64)
    expected = torch.linalg.inv(block)
    torch.testing.assert_close(torch.cov(torch.cat(moved, 1).T), expected, rtol=0, atol=0.05 * float(expected.max()))


def test_a_parameter_without_effect_changes_no_prediction() -> None:
    network = mlp(TASK, width=5).double()
    network.features[1] = nn.ReLU()
    with torch.no_grad():
        network.features[0].bias[0] = -100.0
    dead = torch.tensor([0, 1, 10])  # the first unit's two weights and its bias
    alive = torch.tensor([2, 3, 5, 8, 17])
    with_dead = torch.cat([alive, dead]).sort().values
    x = TASK.test.x.double()
    one, other = (
        Laplace(subset=These(places), structure="full", prior_precision=PRIOR)(Point(network), TASK)(x)
        for places in (alive, with_dead)
    )
    torch.testing.assert_close(one.probs, other.probs, rtol=1e-12, atol=0)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return found


def test_jacobians_are_as_wide_as_the_subnetwork() -> None:
    """A wide layer of 60,000 weights, 20 of them chosen: no tensor of rows x classes x weights is made."""
    generator = torch.Generator().manual_seed(0)
    splits = [
        Split(name, torch.randn(40, 30, generator=generator), torch.arange(40) % 3)
        for name in ("train", "val", "calibration", "test")
    ]
    task = Task("wide", *splits, likelihood=lh.load_task("two-moons").likelihood.__class__(3))
    network = Network(nn.Sequential(nn.Linear(30, 2000), nn.Tanh()), nn.Linear(2000, 3), task.signature, width=2000)
    weights = sum(p.numel() for p in network.parameters())
    places = torch.arange(0, weights, weights // 20)[:20]
    with Largest() as seen:
        made = Laplace(subset=These(places), structure="full", prior_precision=1.0)(Point(network), task.sealed())
        with torch.no_grad():
            made(task.test.x)
    rows, classes = 40, 3
    assert seen.numbers <= max(2 * rows * classes * 2000, 2 * weights) < rows * classes * weights / 10


def test_lines_of_text_files_and_json_know_subnetworks(tmp_path) -> None:
    line_of_text = (
        "mlp(hidden=(5,)) + sgd(epochs=2, lr=0.05, batch_size=20)"
        " + laplace(subset=swag_variance(k=4, path=sgd(epochs=2)), structure='full')"
    )
    recipe = parse(line_of_text)
    assert parse(to_text(recipe)) == recipe
    assert from_json(to_json(recipe)) == recipe
    fitted = recipe.fit(TASK, 0)
    assert len(fitted.indices) == 4
    lh.save(fitted, tmp_path / "p")
    assert torch.equal(lh.load(tmp_path / "p")(TASK.test.x).logits, fitted(TASK.test.x).logits)
    with pytest.raises(ValueError, match="structure='full'"):
        Laplace(subset=Contribution())


@pytest.mark.parametrize("structure", ["diagonal", "low_rank"])
def test_other_structures_go_over_chosen_weights_too(structure: str) -> None:
    places = some(10)
    block = dense()[places][:, places]
    made = over(places, structure=structure, rank=10)
    expected = torch.diag(block.diagonal()) if structure == "diagonal" else block
    torch.testing.assert_close(made.curvature() @ torch.eye(10, dtype=torch.float64), expected, rtol=1e-6, atol=1e-9)


def test_too_many_parameters_for_the_memory_are_refused_before_anything_is_made() -> None:
    step = Laplace(subset=Magnitude(k=1.0), structure="full", memory=1e-6)
    with pytest.raises(CannotCompose, match="a subnetwork of fewer parameters"):
        step(point(), TASK)
