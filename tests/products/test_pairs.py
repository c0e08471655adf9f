"""Every two parts meet in some recipe: it fits two steps and predicts, or says what to write instead; nothing else.

Every other recipe here, all of them with --all-pairs (`make test ARGS=--all-pairs`).
"""

import pytest
from products.pairs import BASE, outcome, rows, settle

ROWS = rows()


def test_the_base_works():
    assert outcome(BASE) == ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "choices" in metafunc.fixturenames:
        metafunc.parametrize("choices", ROWS if metafunc.config.getoption("--all-pairs") else ROWS[::2], ids=str)


def test_parts_go_together_or_say_why_not(choices):
    settle(choices)
