"""Dirichlet calibration: exact where the probability vectors are Dirichlet distributed."""

import pytest
import torch
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches
from posthoc.small import Table, tabled

from levelhead.posthoc.dirichlet import Dirichlet
from levelhead.predictor import predict


def test_it_helps_in_both_orders():
    check_it_helps(Dirichlet())
    check_both_orders(Dirichlet())
    assert gradient_reaches(Dirichlet()) > 0.01


def test_dirichlet_classes_are_calibrated_by_bayes_rule():
    """p given class k is Dirichlet(alpha_k): P(k | p) is softmax of a linear map of log p with known numbers."""
    alpha = torch.tensor([[4.0, 1.0, 2.0], [1.5, 3.0, 1.0], [1.0, 1.0, 5.0]])
    torch.manual_seed(0)
    y = torch.arange(6000) % 3
    p = torch.distributions.Dirichlet(alpha[y]).sample().double().clamp_min(1e-12)
    task = tabled(y, (5000, 1000), num_classes=3)
    fitted = Dirichlet(off_diagonal=0.0, intercept=0.0)(Table(p.log()[None]), task)
    normaliser = torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1)
    truth = (p.log() @ (alpha - 1).double().mT + normaliser).softmax(-1)
    found = predict(fitted, task.test).probs
    assert (found - truth[5000:]).abs().mean() < 0.01
    assert (p[5000:] - truth[5000:]).abs().mean() > 0.1


def test_penalties_are_not_negative():
    with pytest.raises(ValueError, match="penalties"):
        Dirichlet(intercept=-1.0)
