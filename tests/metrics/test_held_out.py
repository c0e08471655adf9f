"""The loss of held-out rows against sums by hand."""

import pytest
import torch

from levelhead.metrics.held_out import held_out_nll
from levelhead.predictive import CategoricalMixture, GaussianMixture


def test_labels_soft_labels_and_void():
    logits = torch.randn(2, 5, 3)
    belief = CategoricalMixture(logits)
    y = torch.tensor([0, 2, 1, 1, 0])
    expected = -belief.log_probs[torch.arange(5), y].double().mean()
    torch.testing.assert_close(held_out_nll(belief, y), expected)
    torch.testing.assert_close(
        held_out_nll(belief[torch.tensor([0, 2])], y[[0, 2]]),
        held_out_nll(belief, torch.tensor([0, 255, 1, 255, 255]), void=255),
    )
    one = CategoricalMixture(logits[:1])
    hard = torch.nn.functional.one_hot(y, 3).float()
    torch.testing.assert_close(held_out_nll(one, hard), held_out_nll(one, y))


def test_densities():
    belief = GaussianMixture(torch.zeros(1, 4, 1), torch.ones(1, 4, 1))
    y = torch.randn(4, 1)
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(y).double().mean()
    torch.testing.assert_close(held_out_nll(belief, y), expected)


def test_nothing_but_void_is_an_error():
    with pytest.raises(ValueError, match="void"):
        held_out_nll(CategoricalMixture(torch.zeros(1, 2, 3)), torch.tensor([255, 255]), void=255)
