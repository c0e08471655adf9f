"""Leapfrog against what Hamiltonian dynamics conserves, the posterior's energy against finite differences."""

import itertools
import math

import pytest
import torch
from samplers.targets import banana
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import extend, network_loss
from levelhead.network import Network
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.priors.correlated import Correlated
from levelhead.priors.term import Prior
from levelhead.samplers._trajectory import Place, Posterior, StepSize, change, leap, plus, squares
from levelhead.tasks.stripes import stripes
from levelhead.training import Run

TASK = stripes(n=24, size=8)
BATCH = next(TASK.train.ordered(24))
BATCH = BATCH._replace(x=BATCH.x.double())


class Energy:
    """A differentiable energy of one tensor named w."""

    def __init__(self, energy):
        self.energy = energy

    def at(self, weights):
        w = weights["w"] if weights["w"].requires_grad else weights["w"].requires_grad_(True)
        energy = self.energy(w)
        (slope,) = torch.autograd.grad(energy, w, create_graph=True)
        return Place(weights, {"w": slope}, energy)

    def push(self, white):
        return white

    def rise(self, start, end):
        return end.energy - start.energy


def follow(potential, place, momentum, step, count):
    for _ in range(count):
        place, momentum = leap(potential, place, momentum, step)
    return place, momentum


def posterior(*terms, network: Network | None = None, **settings) -> Posterior:
    network = network or MLP(hidden=(6,), activation="tanh")(TASK.signature).double()
    settings = {"prior_scale": 0.4, "temperature": 1.0, "num_rows": len(TASK.train), **settings}
    started = [term.start(network, TASK, Run(0)) if hasattr(term, "start") else term for term in terms]
    return Posterior(network, extend(network_loss, started), BATCH, **settings)


def white_noise(potential: Posterior) -> dict[str, torch.Tensor]:
    return {name: torch.randn_like(p) for name, p in potential.parameters.items()}


def here(potential: Posterior) -> Place:
    return potential.at({name: p.detach().clone() for name, p in potential.parameters.items()})


def test_a_trajectory_runs_backwards():
    potential = posterior()
    start, momentum = here(potential), white_noise(posterior())
    end, after = follow(potential, start, momentum, 0.05, 50)
    assert (end.weights["head.weight"] - start.weights["head.weight"]).norm() > 0.1
    back, before = follow(potential, end, {name: -r for name, r in after.items()}, 0.05, 50)
    for name in momentum:
        assert_close(back.weights[name], start.weights[name], rtol=0, atol=1e-10)
        assert_close(before[name], -momentum[name], rtol=0, atol=1e-10)


def test_a_step_keeps_volume():
    potential = Energy(lambda w: banana(w[None]))

    def stepped(state):
        place, momentum = leap(potential, potential.at({"w": state[:2]}), {"w": state[2:]}, 0.3)
        return torch.cat([place.weights["w"], momentum["w"]])

    state = torch.tensor([0.7, 0.2, -0.4, 1.1], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(stepped, state)
    assert (jacobian - torch.eye(4, dtype=torch.float64)).abs().max() > 0.1
    assert_close(torch.linalg.det(jacobian), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_half_the_step_makes_a_quarter_of_the_error():
    potential = posterior()
    start, momentum = here(potential), white_noise(potential)
    errors = []
    for step, count in ((0.04, 25), (0.02, 50), (0.01, 100)):
        end, after = follow(potential, start, momentum, step, count)
        errors.append(abs(float(change(potential, start, momentum, end, after))))
    assert errors[0] > 1e-6
    for coarse, fine in itertools.pairwise(errors):
        assert 3.6 < coarse / fine < 4.4


def test_a_quadratic_returns_after_its_period():
    omega = 3.0
    potential = Energy(lambda w: 0.5 * omega**2 * w.square().sum())
    start = torch.tensor([0.8, -0.3], dtype=torch.float64)
    momentum = {"w": torch.tensor([0.5, 1.0], dtype=torch.float64)}
    count = 4000
    end, after = follow(potential, potential.at({"w": start}), momentum, 2 * math.pi / omega / count, count)
    assert_close(end.weights["w"].detach(), start, rtol=0, atol=1e-5)
    assert_close(after["w"].detach(), momentum["w"], rtol=0, atol=1e-5)


def correlated(network: Network) -> Prior:
    mixing = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    covariance = mixing @ mixing.T / 64 + 0.1 * torch.eye(64)
    piece = Correlated(network, "features.hidden1.linear", covariance[None], with_bias=False, author="test")
    return Prior([piece], len(TASK.train))


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("kind", ["own", "none", "gaussian", "correlated and own"])
def test_the_gradient_is_that_of_the_energy_in_white_coordinates(kind, temperature):
    network = MLP(hidden=(6,), activation="tanh")(TASK.signature).double()
    terms = {"gaussian": (GaussianPrior(0.2),), "correlated and own": (correlated(network),)}.get(kind, ())
    potential = posterior(*terms, network=network, temperature=temperature, prior_scale=None if kind == "none" else 0.4)
    start, direction = here(potential), white_noise(potential)
    pushed = potential.push(direction)
    ends = [potential.at(plus(start.weights, pushed, h)) for h in (-1e-5, 1e-5)]
    measured = potential.rise(*ends) / 2e-5
    expected = sum((start.gradient[name] * v).sum() for name, v in direction.items())
    assert abs(float(expected)) > 0.1
    assert_close(measured, expected, rtol=1e-6, atol=0)


def test_the_prior_is_white_in_the_coordinates():
    network = MLP(hidden=(6,), activation="tanh")(TASK.signature).double()
    prior = correlated(network)
    potential = posterior(prior, network=network, temperature=0.25)
    v = white_noise(potential)
    w = potential.push(v)
    potential.place(w)
    energy = prior.energy(network) + sum(w[name].square().sum() for name in potential.own) / (2 * 0.4**2)
    assert_close(energy.detach() / 0.25, sum(t.square().sum() for t in v.values()) / 2)


@pytest.mark.parametrize("terms", [(), (GaussianPrior(0.2),)], ids=["own", "objective"])
def test_temperature_divides_likelihood_and_prior_once(terms):
    network = MLP(hidden=(6,), activation="tanh")(TASK.signature).double()
    warm, cold = (posterior(*terms, network=network, temperature=t) for t in (1.0, 0.1))
    assert_close(cold.total(here(cold)), 10 * warm.total(here(warm)))
    w = here(warm).weights
    scale = 0.2 if terms else 0.4
    prior = sum(t.square().sum() for t in w.values()) / (2 * scale**2)
    loss = network.likelihood.loss(network(BATCH.x), BATCH.y).detach()
    assert_close(warm.total(here(warm)), len(TASK.train) * loss + prior)


def test_a_prior_is_written_once():
    network = MLP(hidden=(6,))(TASK.signature).double()
    spoken, alone = (posterior(GaussianPrior(0.2), network=network, prior_scale=scale) for scale in (5.0, None))
    assert spoken.own == alone.own == ()
    assert_close(spoken.total(here(spoken)), alone.total(here(alone)))
    part = posterior(correlated(network), network=network, prior_scale=5.0)
    assert set(part.own) == {"features.hidden1.linear.bias", "head.weight", "head.bias"}


def test_priors_of_resting_parameters_are_left_alone():
    network = MLP(hidden=(6,))(TASK.signature).double()
    network.features.requires_grad_(False)
    potential = posterior(GaussianPrior(0.2), network=network)
    place = here(potential)
    assert set(place.gradient) == {"head.weight", "head.bias"}
    assert_close(potential.push(place.gradient)["head.bias"], 0.2 * place.gradient["head.bias"])


def test_a_parameter_that_is_not_used_feels_its_prior_alone():
    network = MLP(hidden=(6,))(TASK.signature).double()
    network.spare = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    assert_close(here(posterior(network=network)).gradient["spare"], network.spare.detach() / 0.4)


def test_differences_of_large_sums_keep_their_digits():
    old = torch.full((1000,), 300.0)
    new = old.clone()
    new[0] += 2.0**-15
    assert float(new.square().sum() - old.square().sum()) == 0  # in float32 the difference of sums is lost
    assert float(squares(new, old)) == pytest.approx(2 * 300 * 2.0**-15, rel=1e-6)


def test_the_step_size_finds_its_acceptance():
    tuned = StepSize(0.01, 0.7)
    for _ in range(300):
        tuned.hear(math.exp(-((tuned.step / 0.5) ** 2)))
    assert math.exp(-((tuned.settled / 0.5) ** 2)) == pytest.approx(0.7, abs=0.02)
