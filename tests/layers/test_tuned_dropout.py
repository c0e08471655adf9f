"""Every row is dropped at its own rate, and no gradient goes to the rates."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.layers.tuned_dropout import TunedDropout


def layer(rates: list[list[float]]) -> TunedDropout:
    """One member a list of rates."""
    made = TunedDropout(len(rates), 1).train()
    made.settings = torch.stack([torch.zeros(len(rates), len(rates[0])), torch.tensor(rates)], -1)
    return made


def test_masks_have_mean_one_and_the_variance_of_their_rows_rate():
    torch.manual_seed(0)
    out = layer([[0.1, 0.5], [0.9, 0.3]])(torch.ones(4, 200_000))
    rates = torch.tensor([0.1, 0.5, 0.9, 0.3])
    assert_close(out.mean(1), torch.ones(4), rtol=0, atol=0.03)
    assert_close(out.var(1), rates / (1 - rates), rtol=0.03, atol=0)
    assert_close((out == 0).float().mean(1), rates, rtol=0, atol=0.01)


def test_rest_is_the_identity_and_needs_no_rates():
    x = torch.randn(4, 3)
    assert TunedDropout(2, 0).eval()(x) is x


def test_no_gradient_reaches_a_rate():
    made = layer([[0.5, 0.5]])
    made.settings = made.settings.requires_grad_(True)
    x = torch.ones(2, 5, requires_grad=True)
    made(x).sum().backward()
    assert made.settings.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("shape", [(2, 6), (2, 3, 4), (2, 3, 5, 5)])
def test_maps_and_tokens_are_dropped_value_by_value(shape):
    torch.manual_seed(0)
    out = layer([[0.5, 0.001]])(torch.ones(shape))
    assert set(out[0].unique().tolist()) == {0.0, 2.0}
