import itertools

import pytest
import torch
from torch.testing import assert_close

from levelhead.shifts.missing_columns import MissingColumns

X = torch.arange(40.0).reshape(4, 10)


def missing(x: torch.Tensor, severity: int, shift: MissingColumns = MissingColumns()) -> tuple[torch.Tensor, set[int]]:
    moved = shift(x, severity, torch.Generator())
    return moved, set((moved != x).any(0).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("severity, count", [(1, 1), (2, 2), (3, 4), (4, 6), (5, 8)])
def test_a_share_of_the_columns_is_the_mean(severity: int, count: int) -> None:
    moved, gone = missing(X, severity)
    assert len(gone) == count
    for column in range(10):
        assert_close(moved[:, column], X[:, column].mean().expand(4) if column in gone else X[:, column])


def test_severities_are_nested_and_the_seed_chooses_the_order() -> None:
    sets = [missing(X, severity)[1] for severity in range(1, 6)]
    assert all(a < b for a, b in itertools.pairwise(sets))
    assert len({frozenset(missing(X, 3, MissingColumns(seed=seed))[1]) for seed in range(5)}) > 1


def test_training_rows_say_what_stands_in() -> None:
    shift = MissingColumns().measured(torch.full((3, 10), 7.0))
    moved, gone = missing(X, 5, shift)
    assert set(moved[:, sorted(gone)].reshape(-1).tolist()) == {7.0}
    assert shift.measured(X) == shift  # what was given stays


def test_one_column_can_be_all_there_is() -> None:
    assert_close(missing(torch.tensor([[1.0], [3.0]]), 1)[0], torch.full((2, 1), 2.0))


def test_bad_fields_are_named() -> None:
    with pytest.raises(ValueError, match="levels"):
        MissingColumns(levels=(0.1,))
    with pytest.raises(ValueError, match="levels"):
        MissingColumns(levels=(0.0, 0.1, 0.2, 0.3, 0.4))
    with pytest.raises(ValueError, match="3 numbers, x has 10"):
        missing(X, 1, MissingColumns(fill=(0.0, 0.0, 0.0)))
