"""What the page says about members, against the records."""

from report.runs import THREE, classification, regression

from levelhead.report.between import between_members
from levelhead.report.evidence import read
from levelhead.report.page import page
from levelhead.report.words import metric


def test_every_mixture_has_a_row_clean_and_under_shift(tmp_path):
    (evidence,) = read(classification(tmp_path, THREE, seeds=(0, 1), rows=60))
    made = between_members(evidence)
    assert made.count("<tr") == 2 + 3
    for suite, name in (("clean", "pairwise_kl"), ("clean", "error_correlation"), ("shift", "disagreement")):
        estimate = evidence.done[1].estimate(name, suite)
        assert metric(name).write_estimate(estimate) in made
    assert "Between members" in page([evidence])


def test_where_nothing_has_members_there_is_no_table(tmp_path):
    (evidence,) = read(regression(tmp_path))
    assert between_members(evidence) is None
    assert "Between members" not in page([evidence])
