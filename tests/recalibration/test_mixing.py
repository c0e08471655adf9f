"""Weights by EM against known shares, a general optimiser, and what every round must do."""

import torch
from scipy.optimize import minimize

from levelhead.recalibration import mixing as module
from levelhead.recalibration.mixing import mixing


def test_em_finds_a_known_share():
    log_likelihoods = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]).double().log()
    torch.testing.assert_close(mixing(log_likelihoods).exp(), torch.tensor([0.75, 0.25]).double())


def test_the_weights_are_those_of_a_general_optimiser():
    log_likelihoods = 3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).double() - 800

    def loss(w):
        return -float(torch.logsumexp(log_likelihoods + torch.tensor(w).double().log(), -1).mean())

    simplex = {"type": "eq", "fun": lambda w: sum(w) - 1}
    best = minimize(loss, [1 / 4] * 4, bounds=[(1e-12, 1)] * 4, constraints=simplex)
    found = mixing(log_likelihoods).exp()
    assert loss(found.tolist()) <= best.fun + 1e-7
    torch.testing.assert_close(found.sum(), torch.tensor(1.0).double())


def test_no_round_lowers_the_likelihood(monkeypatch):
    log_likelihoods = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double()
    before = -torch.inf
    for rounds in range(1, 20):
        monkeypatch.setattr(module, "ROUNDS", rounds)
        after = float(torch.logsumexp(log_likelihoods + mixing(log_likelihoods), -1).mean())
        assert after >= before - 1e-12
        before = after


def test_one_member_that_dominates_takes_all():
    log_likelihoods = torch.tensor([[-1.0, -3.0, -9.0]]).double().expand(20, 3)
    torch.testing.assert_close(mixing(log_likelihoods).exp(), torch.tensor([1.0, 0.0, 0.0]).double(), atol=1e-6, rtol=0)
