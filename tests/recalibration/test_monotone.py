"""Isotonic curves and histograms against scikit-learn, a quadratic programme by hand, and their definitions."""

import numpy as np
import pytest
import torch
from posthoc.small import Table
from sklearn.isotonic import IsotonicRegression

from levelhead.recalibration.monotone import Curves, histogram, isotonic, padded


@pytest.mark.parametrize("ties", [False, True])
def test_isotonic_is_scikit_learns(ties):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, generator=generator, dtype=torch.float64)
    if ties:
        x = (x * 20).round() / 20
    y = (torch.rand(200, generator=generator) < x).double()
    knots, values = isotonic(x, y)
    at = torch.linspace(-0.1, 1.1, 300, dtype=torch.float64)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(x.numpy(), y.numpy())
    found = np.interp(at.numpy(), knots.numpy(), values.numpy())
    np.testing.assert_allclose(found, oracle.predict(at.numpy()), atol=1e-12)
    assert (values.diff() >= 0).all()


def test_isotonic_pools_what_falls():
    knots, values = isotonic(
        torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    )
    assert knots.tolist() == [1, 2, 3, 4]
    assert values.tolist() == [0, 0.5, 0.5, 1]


def test_a_histogram_has_equal_mass_and_means():
    x = torch.arange(12, dtype=torch.float64)
    y = torch.arange(12, dtype=torch.float64) ** 2
    edges, means = histogram(x, y, num_bins=4)
    assert edges.tolist() == [2, 5, 8, 11]
    assert means.tolist() == [y[i : i + 3].mean().item() for i in (0, 3, 6, 9)]


def test_ties_share_a_bin():
    x = torch.tensor([0.25] * 7 + [0.75] * 3).double()
    edges, means = histogram(x, x, num_bins=5)
    assert edges.tolist() == [0.25, 0.75]
    torch.testing.assert_close(means, edges)
    assert histogram(x[:2], x[:2], num_bins=5)[0].tolist() == [0.25]  # fewer rows than bins


def curves(knots, values, *, steps, top_label=False, blend=0.0):
    return Curves(Table(), knots, values, steps, top_label, blend)


@pytest.mark.parametrize("steps", [False, True])
def test_classes_are_mapped_and_renormalised(steps):
    knots, values = padded(
        [
            (torch.tensor([0.2, 0.6], dtype=torch.float64), torch.tensor([0.1, 0.5], dtype=torch.float64)),
            (torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64), torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64)),
            (torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)),
        ]
    )
    p = torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64)
    expected = torch.tensor([0.5, 0.4, 0.25] if steps else [0.3, 0.2, 0.25], dtype=torch.float64)
    found = curves(knots, values, steps=steps).mapped(p.log()).exp()
    torch.testing.assert_close(found, expected / expected.sum())


def test_where_every_curve_says_zero_the_old_prediction_stays():
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    flat = curves(torch.ones(3, 1).double(), torch.zeros(3, 1).double(), steps=False)
    torch.testing.assert_close(flat.mapped(p.log()).exp(), p)


def test_the_top_label_is_mapped_and_the_rest_keeps_its_shares():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    top = curves(
        torch.tensor([[0.5, 0.8]], dtype=torch.float64),
        torch.tensor([[0.4, 0.9]], dtype=torch.float64),
        steps=False,
        top_label=True,
    )
    expected = torch.tensor([[0.4, 0.36, 0.24], [0.05, 0.05, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(top.mapped(p.log()).exp(), expected)
    sure = torch.tensor([[0.0, 0.0, -1e3]], dtype=torch.float64).flip(-1)  # the rest has underflowed
    assert top.mapped(sure).isfinite().all()


def test_the_blend_is_a_mixture_and_has_a_gradient():
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).requires_grad_()
    binned = curves(torch.ones(3, 1).double(), torch.full((3, 1), 0.5).double(), steps=True, blend=0.1)
    q = binned.mapped(p.log()).exp()
    torch.testing.assert_close(q, 0.9 / 3 + 0.1 * p)
    (gradient,) = torch.autograd.grad(q[0, 0], p)
    assert gradient[0, 0] > 0


def test_padding_changes_nothing():
    short = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    long = torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([0.3, 0.3], dtype=torch.float64)
    both = curves(*padded([short, long]), steps=False)._curve(torch.tensor([[0.05, 0.5, 0.9]] * 2).double())
    torch.testing.assert_close(both, torch.full((2, 3), 0.3).double())
