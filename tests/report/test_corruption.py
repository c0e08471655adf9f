"""Mean corruption error on the page, against the formula on the records."""

import numpy as np
import pytest
from report.runs import THREE, classification, regression

from levelhead.report.corruption import _measured, corruption_table
from levelhead.report.evidence import read
from levelhead.report.page import page

KINDS = ("contrast", "gaussian_noise", "pixelate")


def test_numbers_are_ratios_to_the_plain_recipe_within_each_seed(tmp_path):
    (evidence,) = read(classification(tmp_path, THREE, seeds=(0, 1), shifts=KINDS, severities=(1, 3), rows=60))
    columns = _measured(evidence, "plain")
    plain, other = evidence.done[0], evidence.done[1]
    assert columns["error", "mce"][plain].mean == pytest.approx(1)
    wanted = []
    for ours, theirs in zip(other.done, plain.done, strict=True):
        errors = [
            [np.mean([1 - run.values["shift", kind, level, "accuracy"] for level in (1, 3)]) for kind in KINDS]
            for run in (ours, theirs)
        ]
        wanted.append(np.mean(np.divide(*errors)))
    found = columns["error", "mce"][other]
    assert found.mean == pytest.approx(np.mean(wanted))
    assert found.error == pytest.approx(np.std(wanted, ddof=1) / np.sqrt(2))


def test_the_table_is_on_the_page_where_there_are_corruptions(tmp_path):
    (evidence,) = read(classification(tmp_path / "a", THREE, seeds=(0,), shifts=KINDS, rows=60))
    made = corruption_table(evidence)
    assert made.count("<tr") == 1 + 3
    assert "3 kinds of the usual 15" in made
    assert "Mean corruption error" in page([evidence])
    few = read(classification(tmp_path / "b", THREE, seeds=(0,), shifts=KINDS[:2], rows=60))
    assert corruption_table(few[0]) is None
    assert corruption_table(read(regression(tmp_path / "c"))[0]) is None


def test_without_a_plain_recipe_they_are_plain_means(tmp_path):
    (evidence,) = read(classification(tmp_path, THREE[1:], seeds=(0,), shifts=KINDS, rows=60))
    contender = evidence.done[0]
    found = _measured(evidence, None)["nll", "mce"][contender].mean
    assert found == pytest.approx(contender.estimate("nll", "shift").mean)
    assert "in units of" not in corruption_table(evidence)
