"""Exact targets: squared error, and a predictive that is all epistemic."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.likelihood import MIN_VARIANCE
from levelhead.noiseless import Noiseless

LIKELIHOOD = Noiseless(2, shift=(1.0, -2.0), scale=(3.0, 0.5))


def test_the_loss_is_the_mean_squared_error_of_standardised_targets():
    outputs, y = torch.randn(3, 5, 2), torch.randn(5, 2)
    standardised = (y - torch.tensor([1.0, -2.0])) / torch.tensor([3.0, 0.5])
    expected = torch.stack([torch.nn.functional.mse_loss(row, standardised) for row in outputs]).mean()
    assert_close(LIKELIHOOD.loss(outputs, y), 2 * expected)  # summed over two targets
    assert_close(LIKELIHOOD.member_loss(outputs, y).mean(), LIKELIHOOD.loss(outputs, y))


def test_the_predictive_is_in_own_units_and_has_no_noise():
    outputs = torch.randn(3, 5, 2)
    belief = LIKELIHOOD.predictive(outputs)
    assert_close(belief.means, outputs * torch.tensor([3.0, 0.5]) + torch.tensor([1.0, -2.0]))
    assert_close(belief.aleatoric(), torch.zeros(5))
    spread = belief.means.var(0, correction=0).sum(-1)
    assert_close(belief.epistemic(), spread + MIN_VARIANCE * (9 + 0.25), rtol=1e-4, atol=1e-6)


def test_the_divergence_is_half_the_squared_difference():
    p, q = torch.randn(1, 5, 2), torch.randn(1, 5, 2)
    assert_close(LIKELIHOOD.divergence(p, q), 0.5 * (p - q).square().sum(-1).mean())


def test_refuses_what_no_gaussian_takes():
    with pytest.raises(ValueError, match="wants 2 numbers"):
        Noiseless(2)
    with pytest.raises(ValueError, match="positive"):
        Noiseless(scale=(0.0,))
