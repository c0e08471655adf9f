"""The smallest value of badly behaved functions of one number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.curvature.line_search import minimise


@given(st.floats(-3, 3))
def test_the_bottom_of_a_parabola_in_the_logarithm(bottom):
    found = minimise(lambda t: (math.log10(t) - bottom) ** 2, 1e-4, 1e4)
    assert math.log10(found) == pytest.approx(bottom, abs=1e-6)


def test_an_end_of_the_range_where_the_loss_falls_to_it():
    assert minimise(lambda t: t, 0.05, 20.0) == pytest.approx(0.05, rel=1e-6)
    assert minimise(lambda t: -t, 0.05, 20.0) == pytest.approx(20.0, rel=1e-6)


def test_the_global_bottom_of_two():
    def loss(t: float) -> float:
        return min(abs(math.log(t) + 3), abs(math.log(t) - 3) + 0.1)

    assert math.log(minimise(loss, 1e-3, 1e3)) == pytest.approx(-3, abs=1e-5)


def test_numbers_that_are_none_are_walked_around():
    def loss(t: float) -> float:
        return math.nan if t > 2 else (t - 1) ** 2

    assert minimise(loss, 1e-2, 1e2) == pytest.approx(1.0, abs=1e-4)


def test_a_loss_without_numbers_is_an_error():
    with pytest.raises(ValueError, match="finite nowhere"):
        minimise(lambda t: math.inf, 0.1, 1.0)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (2.0, 1.0)])
def test_a_range_without_sense_is_an_error(ends):
    with pytest.raises(ValueError, match="low < high"):
        minimise(lambda t: t, *ends)
