"""The marginal likelihood of a network's weights against its closed form, and groups of precisions."""

import pytest
import torch
from curvature.test_joint import CASES, F64, dense, fit

from levelhead.curvature.evidence import PRIOR_RANGE, NetworkEvidence, grouped

NAMES = ("features.0.weight", "features.0.bias", "head.weight", "head.bias")


def test_layers_or_all_share_a_precision():
    assert grouped(NAMES, by_layer=True) == (0, 0, 1, 1)
    assert grouped(NAMES, by_layer=False) == (0, 0, 0, 0)


@pytest.mark.parametrize("structure", ["kronecker", "diagonal", "full", "low_rank"])
def test_evidence_is_its_closed_form(structure):
    """log p(data | theta*) + log Normal(theta*; 0, P_0^-1) - log Normal(theta*; theta*, P^-1)."""
    value = fit(CASES["linear"](), structure).curvature
    groups = grouped(value.selection.names, by_layer=True)
    theta = value.selection.theta()
    evidence = NetworkEvidence(value, -3.0, theta, groups)
    prior = torch.tensor([0.3, 2.0, 5.0], dtype=F64)
    each = value.selection.each(evidence.per_tensor(prior))
    precision = dense(value) + each.diag()
    before = torch.distributions.MultivariateNormal(torch.zeros_like(theta), precision_matrix=each.diag())
    after = torch.distributions.MultivariateNormal(theta, precision_matrix=(precision + precision.T) / 2)
    expected = -3.0 + before.log_prob(theta) - after.log_prob(theta)
    torch.testing.assert_close(evidence(prior), expected)


def test_its_slope_is_mackays():
    """dL / dlog p = (D - p tr P^-1 - p |theta|^2) / 2."""
    value = fit(CASES["linear"](), "kronecker").curvature
    theta = value.selection.theta()
    evidence = NetworkEvidence(value, 0.0, theta, grouped(value.selection.names, by_layer=False))
    log_prior = torch.tensor([0.4], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(evidence(log_prior.exp()), log_prior)
    p = float(log_prior.detach().exp())
    inverse = torch.linalg.inv(dense(value) + p * torch.eye(len(theta), dtype=F64))
    expected = 0.5 * (len(theta) - p * inverse.trace() - p * theta.square().sum())
    torch.testing.assert_close(slope[0], expected)


def test_without_data_the_posterior_is_the_prior():
    """H = 0: the evidence is the likelihood less half |theta|^2 in units of the prior."""
    value = fit(CASES["linear"](), "diagonal", temperature=1e30).curvature
    theta = value.selection.theta()
    evidence = NetworkEvidence(value, -1.0, theta, grouped(value.selection.names, by_layer=False))
    expected = -1.0 - 0.5 * 2.0 * theta.square().sum()
    torch.testing.assert_close(evidence(torch.tensor([2.0], dtype=F64)), expected)


def test_weights_at_zero_without_curvature_have_a_precision_too():
    """Their evidence is flat: MacKay's quotient is 0 / 0."""
    value = fit(CASES["linear"](), "full", temperature=1e30).curvature
    groups = grouped(value.selection.names, by_layer=True)
    theta = value.selection.theta()
    theta[: value.selection.sizes[0] + value.selection.sizes[1]] = 0
    found = NetworkEvidence(value, 0.0, theta, groups).best()
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], torch.tensor(PRIOR_RANGE[0], dtype=F64))
