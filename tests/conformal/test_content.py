"""Uniform numbers of rows: uniform, repeatable, their row's own."""

import torch
from scipy.stats import kstest

from levelhead.conformal.content import row_uniforms


def test_they_are_uniform_and_uncorrelated():
    for x in (torch.rand(4000, 1, 5, 5), torch.arange(4000.0)[:, None], (torch.rand(4000, 20) > 0.5).float() * 1e-6):
        u = row_uniforms(x)
        assert kstest(u.numpy(), "uniform").pvalue > 1e-3
        assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 0.06
    assert abs(float(torch.corrcoef(torch.stack([row_uniforms(x, 0), row_uniforms(x, 1)]))[0, 1])) < 0.06


def test_they_belong_to_the_row_and_not_to_its_place():
    x = torch.randn(10, 3)
    whole = row_uniforms(x)
    assert torch.equal(torch.cat([row_uniforms(row[None]) for row in x]), whole)
    assert torch.equal(row_uniforms(x.double()), whole)
    assert torch.equal(row_uniforms(x.flip(0)), whole.flip(0))
    assert len(whole.unique()) == 10
    assert torch.equal(row_uniforms(-torch.zeros(1, 3)), row_uniforms(torch.zeros(1, 3)))
