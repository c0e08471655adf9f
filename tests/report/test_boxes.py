"""Boxes over the kinds of shift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.report.boxes import Five


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=15))
def test_a_box_shows_numpys_quartiles(values):
    assert Five.of(values) == pytest.approx(np.percentile(values, [0, 25, 50, 75, 100]), abs=1e-9)
