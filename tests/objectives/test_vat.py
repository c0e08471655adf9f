"""Power iteration against the dense curvature, and what a side pass may not touch."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.likelihood import Categorical, Gaussian, Signature
from levelhead.network import Network
from levelhead.objectives.vat import VAT, unit
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import Batch

SIGNATURE = Signature((5,), 4, Categorical(4))


def linear(outputs: int = 4) -> Network:
    signature = Signature((5,), outputs, Categorical(outputs))
    return Network(nn.Identity(), nn.Linear(5, outputs), signature, width=5).double()


def curved() -> Network:
    features = nn.Sequential(nn.Linear(5, 16), nn.Tanh())
    return Network(features, nn.Linear(16, 4), SIGNATURE, width=16).double()


def forward_of(network: Network, n: int = 3) -> Forward:
    x = torch.rand(n, 5, dtype=torch.float64)
    return Forward(network, Batch(x, torch.zeros(n, dtype=torch.long), torch.arange(n)))


def dense(network: Network, x: Tensor) -> Tensor:
    """J^T (diag p - p p^T) J of one example."""
    jacobian = jacrev(lambda x: network(x[None])[0, 0])(x)
    p = network(x[None])[0, 0].softmax(-1)
    return jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian


@pytest.mark.parametrize("make", [linear, curved])
def test_exact_products_are_those_of_the_dense_curvature(make: type[Network]) -> None:
    forward = forward_of(make())
    x, d = forward.batch.x, unit(torch.randn(3, 5, dtype=torch.float64))
    products = VAT(power="exact")._times_curvature(forward, x, d)
    for row in range(3):
        assert_close(products[row], dense(forward.network, x[row]) @ d[row])


def test_the_dense_curvature_is_the_hessian_of_the_divergence() -> None:
    network = curved()
    x = torch.rand(5, dtype=torch.float64)
    clean = network(x[None]).detach()
    slope = jacrev(lambda r: network.likelihood.example_divergence(clean, network((x + r)[None]))[0, 0])
    assert_close(jacrev(slope)(torch.zeros(5, dtype=torch.float64)), dense(network, x))


def test_finite_differences_find_the_exact_direction() -> None:
    forward = forward_of(curved(), 8)
    d = unit(torch.randn(8, 5, dtype=torch.float64))
    exact = unit(VAT(power="exact")._times_curvature(forward, forward.batch.x, d))
    finite = unit(VAT(power="finite", xi=1e-4)._times_curvature(forward, forward.batch.x, d))
    assert ((exact * finite).sum(1) > 0.999).all()


@pytest.mark.parametrize("power", ["exact", "finite"])
def test_many_rounds_end_at_the_top_eigenvector(power: str) -> None:
    forward = forward_of(linear())
    r = VAT(eps=0.7, power_steps=100, power=power).perturbation(forward)
    for row in range(3):
        top = torch.linalg.eigh(dense(forward.network, forward.batch.x[row])).eigenvectors[:, -1]
        assert abs((r[row] @ top).item()) == pytest.approx(0.7, rel=1e-3)


def test_one_round_is_exact_for_two_classes() -> None:
    network = linear(2)
    w = (network.head.weight[1] - network.head.weight[0]).detach()
    r = VAT(eps=2.0, power="exact").perturbation(forward_of(network))
    assert_close((r @ w).abs(), 2 * w.norm().expand(3))


@pytest.mark.parametrize("shape", [(1, 5), (4, 2, 3, 3)])
def test_perturbations_have_length_eps(shape: tuple[int, ...]) -> None:
    features = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.tensor(shape[1:]).prod()), 6), nn.Tanh())
    network = Network(features, nn.Linear(6, 4), Signature(shape[1:], 4, Categorical(4)), width=6)
    forward = Forward(
        network, Batch(torch.rand(shape), torch.zeros(shape[0], dtype=torch.long), torch.arange(shape[0]))
    )
    assert_close(VAT(eps=1.5).perturbation(forward).flatten(1).norm(dim=1), torch.full((shape[0],), 1.5))
    scaled = VAT(eps=0.1, eps_units="per_sqrt_dim").perturbation(forward).flatten(1)
    assert_close(scaled.norm(dim=1), torch.full((shape[0],), 0.1 * scaled.shape[1] ** 0.5))


def test_a_saturated_or_constant_model_gives_a_random_direction_and_no_loss() -> None:
    network = linear()
    nn.init.zeros_(network.head.weight)
    forward = forward_of(network)
    assert_close(VAT(eps=1.0).perturbation(forward).norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert VAT().smoothness(forward).item() == pytest.approx(0, abs=1e-12)


def test_no_radius_no_loss_and_never_negative() -> None:
    forward = forward_of(curved())
    assert VAT(eps=0.0).smoothness(forward).item() == pytest.approx(0, abs=1e-12)
    assert VAT(eps=1.0).smoothness(forward).item() > 0


def test_shared_noise_makes_the_floor_zero() -> None:
    made = MLP()(SIGNATURE)
    dropping = Network(nn.Sequential(made.features, nn.Dropout(0.5)), made.head, SIGNATURE, width=50).train()
    forward = forward_of(dropping.double())
    assert VAT(eps=0.0).smoothness(forward).item() == pytest.approx(0, abs=1e-9)


def test_gradient_in_the_weights_is_that_of_the_final_pass_alone() -> None:
    network = curved()
    forward = forward_of(network)
    spec = VAT(eps=0.5)
    torch.manual_seed(1)
    got = torch.autograd.grad(spec.smoothness(forward), list(network.parameters()))
    torch.manual_seed(1)
    r, clean = spec.perturbation(forward), forward.outputs.detach()
    by_hand = network.likelihood.divergence(clean, network(forward.batch.x + r))
    assert_close(got, torch.autograd.grad(by_hand, list(network.parameters())))


def test_it_leaves_no_trace_on_the_network() -> None:
    made = MLP(batch_norm=True)(SIGNATURE).train()
    x = torch.rand(8, 5)
    forward = Forward(made, Batch(x, torch.zeros(8, dtype=torch.long), torch.arange(8)))
    assert forward.outputs.requires_grad  # the clean pass may move statistics
    before = {name: t.clone() for name, t in made.state_dict().items()}
    VAT().smoothness(forward)
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in made.parameters())


def test_regression_smooths_the_gaussian() -> None:
    signature = Signature((5,), 2, Gaussian())
    network = Network(nn.Identity(), nn.Linear(5, 2), signature, width=5).double()
    nn.init.zeros_(network.head.weight[1:])
    forward = forward_of(network)
    r = VAT(eps=1.0, power="exact", power_steps=2).perturbation(forward)
    w = network.head.weight[0].detach()
    assert_close((r @ w).abs(), w.norm().expand(3))


def test_unlabelled_rows_are_smoothed_too_and_resume() -> None:
    task = stripes(n=48)
    semi = task.__class__(**{**vars_of(task), "unlabelled": task.train})
    spec = VAT(unlabelled_batch=10)
    network = MLP()(task.signature)
    first, second = (spec.start(network, semi, Run(0)) for _ in range(2))
    batch = next(task.train.ordered(8))
    values = [float(first(network_loss, Forward(network, batch)).detach()) for _ in range(7)]
    assert min(values) > float(network_loss(Forward(network, batch)).detach())
    second.load_state_dict(first.state_dict())
    assert torch.equal(first._draw(batch).index, second._draw(batch).index)
    assert torch.equal(first._draw(batch).x, second._draw(batch).x)
    assert spec.start(network, task, Run(0)) is spec


def test_training_with_vat_makes_the_prediction_smoother() -> None:
    task = stripes(n=96)
    roughness = []
    for regularisers in ((), (VAT(eps=1.0),)):
        recipe = Recipe(backbone=MLP((32,)), regularisers=regularisers, sampler=SGD(epochs=20, lr=0.05))
        network = next(recipe.fit(task, 0).networks())
        forward = Forward(network, next(task.val.ordered(24)))
        torch.manual_seed(0)
        roughness.append(float(VAT(eps=1.0, power_steps=3).smoothness(forward).detach()))
    assert roughness[1] < roughness[0] / 2, roughness


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="eps >= 0"):
        VAT(eps=-1.0)


def vars_of(task: object) -> dict[str, object]:
    names = ("name", "train", "val", "calibration", "test", "likelihood", "ood", "classes", "args")
    return {name: getattr(task, name) for name in names}
