"""Statistics of a stream equal those of all rows at once."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from levelhead.detectors._moments import Moments, Sample, pooled

GENERATOR = torch.Generator().manual_seed(0)
Z = 1000 + torch.randn(97, 4, generator=GENERATOR, dtype=torch.float64)  # far from zero, where sums of squares cancel
Y = torch.randint(3, (97,), generator=GENERATOR)


def streamed(covariance, sizes=(40, 1, 56)):
    moments = Moments(4, covariance)  # the fourth class has no rows
    for z, y in zip(Z.split(sizes), Y.split(sizes), strict=True):
        moments.add(z, y)
    return moments


def scatter(k):
    own = Z[k == Y] - Z[k == Y].mean(0)
    return own.mT @ own


def test_the_scatters_are_those_of_all_rows():
    assert_close(streamed("tied").scatter, sum(scatter(k) for k in range(3)))
    assert_close(streamed("full").scatter[:3], torch.stack([scatter(k) for k in range(3)]))
    assert_close(streamed("diagonal").scatter[:3], torch.stack([scatter(k).diagonal() for k in range(3)]))
    assert_close(streamed("tied").mean[:3], torch.stack([Z[k == Y].mean(0) for k in range(3)]))
    assert streamed("tied").present.tolist() == [True, True, True, False]


@pytest.mark.parametrize("covariance", ["tied", "full", "diagonal"])
def test_how_the_rows_are_cut_does_not_matter(covariance):
    one, other = streamed(covariance, (97,)), streamed(covariance, (1, 1, 95))
    assert_close(one.scatter, other.scatter)
    assert_close(one.mean, other.mean)


def test_within_and_between_make_the_whole():
    found = pooled(streamed("tied"))
    assert_close(found.mean, Z.mean(0))
    assert_close(found.covariance, torch.from_numpy(np.cov(Z.numpy().T, bias=True)))


def test_a_sample_is_uniform_and_in_order():
    kept = torch.zeros(30)
    for seed in range(400):
        sample = Sample(6, seed)
        for part in torch.arange(30.0)[:, None].split((7, 1, 22)):
            sample.add(part)
        (rows,) = sample.value()
        assert len(rows) == 6
        assert (rows[1:, 0] > rows[:-1, 0]).all()
        kept[rows[:, 0].long()] += 1
    assert kept.min() > 80 - 4 * 8  # mean 80, standard deviation 8
    assert kept.max() < 80 + 4 * 8


def test_a_sample_of_few_rows_is_all_of_them():
    sample = Sample(50, 0)
    sample.add(Z[:10], Z[:10, :1])
    sample.add(Z[10:20], Z[10:20, :1])
    tables = sample.value()
    assert_close(tables[0], Z[:20])
    assert_close(tables[1], Z[:20, :1])
