"""Precision and noise against the closed form of Bayesian linear regression, by a general optimiser."""

import math

import pytest
import torch
from posthoc.small import blobs, line, mlp
from scipy.optimize import minimize
from torch import nn

import levelhead as lh
from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.posthoc.laplace import Laplace
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.marginal_likelihood import MarginalLikelihood
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose

ADAM = AdamW(epochs=6, lr=1e-2, batch_size=20, weight_decay=0.0)


def linear_task() -> Task:
    """Two features and a constant; y has a known scale of weights and of noise."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([[1.5], [-0.7]])
    splits = []
    for name, size in (("train", 25), ("val", 8), ("calibration", 8), ("test", 8)):
        x = torch.randn(size, 2, generator=generator)
        splits.append(Split(name, x, x @ weights + 0.4 + 0.5 * torch.randn(size, 1, generator=generator)))
    return Task("linear", *splits, likelihood=Gaussian())


def linear_network(task: Task) -> Network:
    torch.manual_seed(0)
    return Network(nn.Identity(), nn.Linear(2, 2), task.signature, width=2).double()


def closed_form(task: Task) -> tuple[float, float, float]:
    """The best log p(y) = log N(y; 0, X X' / p + s I), with its p and s."""
    x = torch.cat([task.train.x, torch.ones(len(task.train), 1)], 1).double()
    y = task.train.y[:, 0].double()

    def loss(hyper):
        p, s = math.exp(hyper[0]), math.exp(hyper[1])
        covariance = x @ x.T / p + s * torch.eye(len(x)).double()
        zero = torch.zeros(len(x)).double()
        return -float(torch.distributions.MultivariateNormal(zero, covariance).log_prob(y))

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    return -best.fun, math.exp(best.x[0]), math.exp(best.x[1])


def walked(spec: MarginalLikelihood, network: Network, task: Task):
    state = spec.init(network, task.sealed(), Run(0))
    for epoch in range(spec.epochs):
        for batch in task.train.batches(spec.batch_size, torch.Generator().manual_seed(epoch)):
            like = next(network.parameters())
            spec.step(state, network_loss, batch.to(like.device, like.dtype))
    return state


def test_precision_and_noise_are_those_of_the_closed_form():
    task = linear_task()
    network = linear_network(task)
    spec = MarginalLikelihood(
        inner=SGD(epochs=100, lr=0.1, batch_size=25, weight_decay=0.0, schedule="constant"),
        structure="full",
        scope="all",
        noise="evidence",
        every=2,
        lr=0.3,
    )
    state = walked(spec, network, task)
    best, precision, noise = closed_form(task)
    assert state.history[-1] == pytest.approx(best, abs=3e-3)
    assert float(state.prior_precision) == pytest.approx(precision, rel=2e-2)
    assert float(state.log_variance.detach().exp()) == pytest.approx(noise, rel=2e-2)
    said = spec.predictor(state)(task.test.x.double()).variance
    torch.testing.assert_close(said, torch.full_like(said, noise), rtol=2e-2, atol=0)


def test_the_evidence_is_that_of_laplace_at_the_same_weights_and_priors():
    task = blobs()
    network = mlp(task).double()
    spec = MarginalLikelihood(inner=ADAM, structure="kronecker", scope="all")
    state = walked(spec, network, task)
    point = spec.inner.predictor(state.inner)
    made = Laplace(subset="all", prior_precision=float(state.prior_precision))(point, task)
    assert state.history[-1] == pytest.approx(made.evidence, rel=1e-9)


def test_every_layer_gets_its_own_precision_and_climbs():
    task = blobs()
    spec = MarginalLikelihood(inner=ADAM, structure="diagonal", lr=0.2)
    state = walked(spec, mlp(task), task)
    assert len(state.history) == 6
    assert state.prior_precision.shape == (2,)
    assert (state.prior_precision[0] / state.prior_precision[1]).log().abs() > 0.1
    assert state.history[-1] > state.history[0]


def test_the_result_is_the_network_of_the_best_evidence():
    task = blobs()
    spec = MarginalLikelihood(inner=AdamW(epochs=8, lr=0.1, batch_size=10, weight_decay=0.0), structure="diagonal")
    network = mlp(task)
    state = spec.init(network, task.sealed(), Run(0))
    seen = []
    for epoch in range(8):
        for batch in task.train.batches(10, torch.Generator().manual_seed(epoch)):
            spec.step(state, network_loss, batch)
        if epoch == 5:  # a worse network after the best: it must not be the result
            with torch.no_grad():
                network.head.weight.mul_(30)
        seen.append({name: t.clone() for name, t in network.state_dict().items()})
    best = max(range(8), key=state.history.__getitem__)
    assert best <= 5
    result = next(spec.predictor(state).networks()).state_dict()
    assert all(torch.equal(t, result[name]) for name, t in seen[best].items() if best < 5)


def test_a_prior_that_starts_far_too_weak_grows():
    """Noisy labels and few rows: the evidence asks for regularisation that weak decay does not give."""
    task = blobs((40, 12, 30, 20), spread=3.0)
    spec = MarginalLikelihood(
        inner=AdamW(epochs=10, lr=2e-2, batch_size=20, weight_decay=0.0),
        prior_precision=1e-4,
        lr=0.5,
    )
    state = walked(spec, mlp(task, width=12), task)
    assert (state.prior_precision > 0.1).all()


def test_the_penalty_is_the_prior_divided_by_the_rows():
    task = blobs()
    network = mlp(task).double()
    spec = MarginalLikelihood(inner=ADAM, prior_precision=3.0)
    state = spec.init(network, task.sealed(), Run(0))
    batch = next(task.train.ordered(10))
    forward = Forward(network, batch.to(torch.device("cpu"), torch.float64))
    extended = state.under_prior(network_loss)(forward) - network_loss(forward)
    squared = sum(p.square().sum() for p in network.parameters())
    torch.testing.assert_close(extended, 1.5 * squared / len(task.train))


def test_the_noise_stays_where_the_evidence_put_it():
    task = line()
    spec = MarginalLikelihood(inner=ADAM, noise="evidence", every=3)
    network = mlp(task)
    state = spec.init(network, task.sealed(), Run(0))
    for batch in task.train.batches(20, torch.Generator().manual_seed(0)):
        spec.step(state, network_loss, batch)
    said = network.likelihood.moments(network(task.train.x))[1]
    torch.testing.assert_close(said, torch.ones_like(said))
    state.climb()
    said = network.likelihood.moments(network(task.train.x))[1]
    torch.testing.assert_close(said, state.log_variance.detach().exp().float().expand_as(said))
    assert float(said[0, 0, 0].detach()) != 1.0


def test_what_it_cannot_do_it_says():
    task = blobs()

    def fit(**fields):
        parts = {name: fields.pop(name, ()) for name in ("regularisers", "surgery")}
        return lh.Recipe(backbone=MLP(hidden=(4,)), sampler=MarginalLikelihood(**fields), **parts).fit(task)

    with pytest.raises(CannotCompose, match=r"sgd\(weight_decay=0.0\)"):
        fit(inner=SGD())
    with pytest.raises(CannotCompose, match="one gradient sampler"):
        fit(inner=SWAG())
    with pytest.raises(CannotCompose, match="noise='network' for classes"):
        fit(noise="evidence")
    with pytest.raises(CannotCompose, match="Leave one of the two out"):
        fit(regularisers=(GaussianPrior(),))
    with pytest.raises(CannotCompose, match="put Laplace\\(\\) behind it"):
        fit(surgery=(BatchEnsemble(),))
    with pytest.raises(ValueError, match="structure must be one of"):
        MarginalLikelihood(structure="low_rank")
