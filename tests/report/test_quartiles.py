"""Quartiles over kinds and severities, against numpy on the records."""

import numpy as np
import pytest
from report.runs import THREE, classification, regression

from levelhead.report.evidence import read
from levelhead.report.quartiles import quartile, quartile_table


def test_quartiles_are_taken_within_seeds_over_all_shifted_sets(tmp_path):
    contender = read(classification(tmp_path, THREE, seeds=(0, 1), severities=(1, 3, 5), rows=60))[0].done[1]
    per_seed = [
        [value for (suite, _, _, name), value in run.values.items() if suite == "shift" and name == "nll"]
        for run in contender.done
    ]
    assert [len(values) for values in per_seed] == [6, 6]
    for share in (0.25, 0.5, 0.75):
        wanted = [np.quantile(values, share) for values in per_seed]
        found = quartile(contender, "nll", share)
        assert found.mean == pytest.approx(np.mean(wanted))
        assert found.error == pytest.approx(np.std(wanted, ddof=1) / np.sqrt(2))
        assert found.seeds == 2


def test_the_table_has_a_row_a_recipe_and_marks_the_best(tmp_path):
    made = quartile_table(read(classification(tmp_path, THREE, seeds=(0,), rows=60))[0])
    assert made.count("<tr") == 2 + 3
    assert made.count("(best)") == 4 * 3  # measures, quartiles
    for word in ("Accuracy", "NLL", "Brier", "ECE", "25 %", "75 %"):
        assert word in made


def test_without_shifts_there_is_none(tmp_path):
    assert quartile_table(read(regression(tmp_path))[0]) is None
