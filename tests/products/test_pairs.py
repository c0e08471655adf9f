"""Every two parts meet in some recipe: it fits two steps and predicts, or says what to write instead; nothing else."""

import pytest
from products.pairs import BASE, outcome, rows, settle

ROWS = rows()


def test_the_base_works():
    assert outcome(BASE) == ""


@pytest.mark.parametrize("choices", ROWS, ids=str)
def test_parts_go_together_or_say_why_not(choices):
    settle(choices)
