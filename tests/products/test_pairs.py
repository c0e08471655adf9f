"""Parts meet in recipes: each fits two steps and predicts, or says what to write instead; nothing else.

Every part stands in a few recipes here, each time beside others, and about half of all pairs of parts meet; all of them
do with --all-pairs (`make test ARGS=--all-pairs`), whose number grows with the square of the parts.
"""

from collections import Counter

import pytest
from products.pairs import BASE, FAMILIES, outcome, rows, settle, specs

TURNS = 5


def test_the_base_works():
    assert outcome(BASE) == ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "choices" in metafunc.fixturenames:
        turns = None if metafunc.config.getoption("--all-pairs") else TURNS
        metafunc.parametrize("choices", rows(turns), ids=str)


def test_parts_go_together_or_say_why_not(choices):
    settle(choices)


def test_no_part_is_left_out():
    often = Counter(part for choices in rows(TURNS) for part in vars(choices).values())
    assert min(often[part] for family in FAMILIES for part in specs(family)) >= TURNS - 1
