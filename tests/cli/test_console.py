import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from levelhead.cli.console import number, plain, seeds_line, table_json
from levelhead.cli.progress import seconds_text, short


@pytest.mark.parametrize(
    "mean, se, digits, shown",
    [
        (88.123, 0.25, 1, "88.1 \n±0.2 "),
        (0.5, math.nan, 3, "0.500 "),
        (math.nan, math.nan, 3, ""),
        (12345.6, 7.0, 3, "12,346 \n±7 "),
    ],
)
def test_numbers_have_their_error_below(mean, se, digits, shown):
    assert number(mean, se, digits).plain == shown


def test_the_best_is_told_by_more_than_colour():
    assert number(1.0, 0.1, 1, ("*", "bold")).plain == "1.0*\n±0.1 "


def test_json_knows_no_nan():
    given = {"a": [np.float64(1.5), math.nan, (np.int64(2), None)], "b": Path("x") / "y"}
    assert plain(given) == {"a": [1.5, None, [2, None]], "b": str(Path("x") / "y")}


def test_a_row_of_json_has_what_was_measured():
    row = {"task": "t", "backbone": "b", "recipe": "r", "digest": "d", "seeds": 2}
    table = pd.DataFrame([{**row, "nll": 0.5, "nll_se": 0.1, "ece": math.nan, "ece_se": math.nan}])
    assert table_json(table) == [{**row, "metrics": {"nll": {"mean": 0.5, "se": 0.1}}, "cost": None}]


def test_the_errors_are_explained():
    assert seeds_line(pd.DataFrame({"seeds": [20, 20]}), splits=True) == "mean ± standard error over 20 splits"
    assert seeds_line(pd.DataFrame({"seeds": [2, 3]}), splits=False) == "mean ± standard error over 2 to 3 seeds"
    assert "test rows" in seeds_line(pd.DataFrame({"seeds": [1]}), splits=False)


def test_times_and_names_are_short():
    assert [seconds_text(s) for s in (5, 250, 7500)] == ["5 s", "4 min 10 s", "2 h 5 min"]
    assert short("a" * 50, 10) == "a" * 9 + "…"
    assert short("[x]") == r"\[x]"
