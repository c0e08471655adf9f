"""How numbers are written."""

import math

import pytest

from levelhead.report.evidence import Estimate
from levelhead.report.words import compact, duration, listed, metric, plural, spoken, times


@pytest.mark.parametrize(
    "name, mean, error, text",
    [
        ("accuracy", 0.8615, 0.0042, "86.2 ± 0.4 %"),
        ("accuracy", 1.0, 0.0, "100.0 ± 0.0 %"),
        ("nll", 0.48149, 0.0031, "0.481 ± 0.003"),
        ("nll", -1.5, math.nan, "−1.500"),
        ("nll", 37.919, 14.289, "37.92 ± 14.29"),
        ("nll", 5602.997, 3682.42, "5,603 ± 3,682"),
        ("ece", 0.11, 0.0003, "11.0 ± 0.03"),
        ("unheard_of", 0.25, 0.5, "0.250 ± 0.500"),
    ],
)
def test_an_estimate_has_the_digits_that_mean_something(name, mean, error, text):
    assert metric(name).write_estimate(Estimate(mean, error, 3)) == text


@pytest.mark.parametrize("value, text", [(401, "401"), (78_042, "78k"), (1_234_567, "1.23M"), (25.6e9, "25.6G")])
def test_counts_are_compact(value, text):
    assert compact(value) == text


@pytest.mark.parametrize("ratio, text", [(1.0, "1×"), (1.136, "1.1×"), (9.6, "9.6×"), (20.0, "20×")])
def test_ratios_are_short(ratio, text):
    assert times(ratio) == text


@pytest.mark.parametrize("seconds, text", [(0.94, "0.9 s"), (42.3, "42 s"), (900, "15 min"), (54_000, "15.0 h")])
def test_times_have_a_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


def test_lists_and_counts_read_as_english():
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [plural(1, "run"), plural(2, "run"), plural(3, "severity", "severities")] == [
        "1 run",
        "2 runs",
        "3 severities",
    ]
    assert spoken("gaussian_noise") == "Gaussian noise"
