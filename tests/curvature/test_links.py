"""Links against the distributions that they stand for."""

import math

import torch

from levelhead.curvature.links import bridge, mackay, probit

F64 = torch.float64


def test_probit_divides_by_the_spread():
    f, variance = torch.randn(7, 3), torch.rand(7, 3)
    torch.testing.assert_close(probit(f, variance), f / (1 + math.pi / 8 * variance).sqrt())
    assert torch.equal(probit(f, torch.zeros(7, 3)), f)


def test_the_bridge_finds_the_dirichlet_it_came_from():
    alpha = torch.rand(20, 5, dtype=F64) * 4 + 0.5
    f = alpha.log() - alpha.log().mean(-1, keepdim=True)
    inverse = 1 / alpha
    covariance = (
        torch.diag_embed(inverse)
        - (inverse.unsqueeze(-1) + inverse.unsqueeze(-2)) / 5
        + inverse.sum(-1)[:, None, None] / 25
    )
    torch.testing.assert_close(bridge(f, covariance), alpha.log(), rtol=1e-9, atol=1e-9)
    shifted = covariance + 0.7  # a shift of all logits has no say
    torch.testing.assert_close(bridge(f + 3.0, shifted), alpha.log(), rtol=1e-6, atol=1e-6)


def test_for_two_classes_mackay_is_the_probit_of_the_difference():
    f = torch.randn(30, 2, dtype=F64)
    root = torch.randn(30, 2, 2, dtype=F64)
    covariance = root @ root.mT
    variance = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
    expected = torch.sigmoid((f[:, 0] - f[:, 1]) / (1 + math.pi / 8 * variance).sqrt())
    torch.testing.assert_close(mackay(f, covariance).softmax(-1)[:, 0], expected)
    # and within 0.017 of the integral that it approximates
    points = torch.linspace(-12, 12, 4001, dtype=F64)
    density = torch.exp(-0.5 * points**2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    integral = (torch.sigmoid((f[:, 0] - f[:, 1])[:, None] + variance.sqrt()[:, None] * points) * density).sum(-1)
    assert (expected - integral).abs().max() < 0.018
