"""Boxes over the kinds of shift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.runs import SHIFTS, THREE, classification

from levelhead.report.boxes import Five, _at, boxes
from levelhead.report.evidence import read


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=15))
def test_a_box_shows_numpys_quartiles(values):
    assert Five.of(values) == pytest.approx(np.percentile(values, [0, 25, 50, 75, 100]), abs=1e-9)


def test_clean_rows_come_first_as_a_line(tmp_path):
    (evidence,) = read(classification(tmp_path, THREE, seeds=(0,), shifts=SHIFTS, severities=(1, 5), rows=60))
    made = boxes(evidence)
    assert made.index(">Clean<") < made.index(">Severity 1<") < made.index(">Severity 5<")
    clean = evidence.done[0].estimate("nll", "clean").mean
    five = _at(evidence, "nll", 0)[evidence.done[0].series]
    assert list(five) == [pytest.approx(clean)] * 5
    wanted = [evidence.done[0].estimate("nll", "shift", shift, 5).mean for shift in SHIFTS]
    assert _at(evidence, "nll", 5)[evidence.done[0].series].median == pytest.approx(np.median(wanted))
