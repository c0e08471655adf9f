"""Places on an axis."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.report.scale import Scale, around, around_log, tick_text


def test_a_scale_maps_its_ends_and_its_middle():
    scale = Scale(10.0, 20.0, 100.0, 0.0)
    assert [scale(10.0), scale(15.0), scale(20.0), scale(99.0)] == [100.0, 50.0, 0.0, 0.0]


def test_a_logarithmic_scale_puts_the_geometric_mean_in_the_middle():
    assert Scale(1.0, 100.0, 0.0, 10.0, log=True)(10.0) == pytest.approx(5.0)


@pytest.mark.parametrize("low, high, log", [(1.0, 1.0, False), (2.0, 1.0, False), (0.0, 1.0, True)])
def test_an_empty_or_impossible_scale_is_refused(low, high, log):
    with pytest.raises(ValueError, match="low < high"):
        Scale(low, high, 0.0, 1.0, log=log)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_in_equal_steps_and_are_neither_few_nor_many(low, width):
    scale = Scale(low, low + width, 0.0, 1.0)
    ticks = scale.ticks(5)
    slack = 1e-6 * max(abs(low), width)
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)
    assert 2 <= len(ticks) <= 7
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) - min(steps) <= 1e-6 * max(abs(low), width)


@given(st.floats(1e-3, 1e3), st.floats(1.05, 1e5))
def test_logarithmic_ticks_lie_inside_and_grow(low, ratio):
    ticks = Scale(low, low * ratio, 0.0, 1.0, log=True).ticks()
    assert ticks == sorted(set(ticks))
    assert len(ticks) >= 2
    assert all(low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6) for tick in ticks)


def test_limits_leave_room_and_ignore_what_is_not_finite():
    low, high = around([1.0, 3.0, math.nan, math.inf])
    assert low < 1.0
    assert high > 3.0
    assert around([]) == (0.0, 1.0)
    assert around([2.0, 2.0])[0] < 2.0 < around([2.0, 2.0])[1]
    low, high = around_log([1.0, 100.0, 0.0])
    assert 0 < low < 1.0 < 100.0 < high


@pytest.mark.parametrize(
    "value, text", [(0.0, "0"), (0.25, "0.25"), (1000.0, "1,000"), (25_000.0, "25,000"), (250_000.0, "2e5")]
)
def test_ticks_are_written_short(value, text):
    assert tick_text(value) == text
