"""Bytes that are said before they are taken."""

import pytest
import torch
from curvature.cases import CASES
from curvature.test_joint import chosen

from levelhead.curvature.memory import Memory, estimate, said
from levelhead.types import CannotCompose


def test_sizes_are_said_in_words():
    assert [said(n) for n in (12, 2048, 3 * 2**20, 5 * 2**30)] == ["12 B", "2 KiB", "3 MiB", "5.0 GiB"]


@pytest.mark.parametrize(
    "structure, kept",
    [("diagonal", lambda d: 8 * d), ("full", lambda d: 8 * d * d), ("low_rank", lambda d: 8 * d * 4)],
    ids=["diagonal", "full", "low_rank"],
)
def test_what_is_kept_is_the_values_own_size(structure, kept):
    case = CASES["linear"]()
    selection = chosen(case)
    assert estimate(case.network, selection, structure, rank=4, num_rows=10**6).kept == kept(selection.size)


def test_kronecker_keeps_a_factor_for_each_side():
    case = CASES["linear"]()  # weights 5 x 4, 3 x 5, 3 x 3, biases 5 and 3
    expected = 8 * (25 + 16 + 25 + 1 + 9 + 25 + 9 + 9 + 9 + 1)
    assert estimate(case.network, chosen(case), "kronecker", rank=1, num_rows=10).kept == expected


def test_few_rows_make_a_full_matrix_cheap():
    case = CASES["batch norm"]()
    few, many = (estimate(case.network, chosen(case), "full", rank=1, num_rows=n) for n in (2, 1000))
    assert few.kept < many.kept / 4


def test_rows_fill_the_limit_and_one_that_is_too_small_is_refused():
    memory = Memory(parameters=10, kept=100, fitting=1000, row=100)
    assert memory.rows(1450, structure="full") == 4
    with pytest.raises(CannotCompose, match=r"structure='full'.*1000 B.*100 B a row.*1.025 KiB.*low_rank"):
        memory.rows(1050, structure="full")


def test_the_network_is_left_as_it_was():
    case = CASES["batch norm"]()
    estimate(case.network, chosen(case), "kronecker", rank=1, num_rows=5)
    assert case.network.training
    assert not any(module._forward_hooks for module in case.network.modules())
    assert torch.equal(case.network.features[1].num_batches_tracked, torch.tensor(0))
