"""The cover covers, is small, and is always the same."""

from math import prod

import pytest
from products.cover import all_pairs, cover, pairs_of


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 3, 3), (4, 6, 6, 3, 3, 4, 4, 3), (1, 5), (7, 1, 2)], ids=str)
def test_every_two_choices_meet(sizes):
    rows = cover(sizes)
    assert set().union(*map(pairs_of, rows)) == set(all_pairs(sizes))
    assert all(0 <= place < size for row in rows for place, size in zip(row, sizes, strict=True))
    assert rows == cover(sizes)
    largest, second = sorted(sizes)[-1], sorted(sizes)[-2]
    assert largest * second <= len(rows) <= min(prod(sizes), 2 * largest * second)


def test_pairs_are_counted_by_hand():
    assert all_pairs((2, 1)) == [((0, 0), (1, 0)), ((0, 1), (1, 0))]
    assert pairs_of((1, 0, 2)) == {((0, 1), (1, 0)), ((0, 1), (2, 2)), ((1, 0), (2, 2))}


def test_what_a_choice_needs_stands_beside_it():
    def repair(row, kept):  # choice 2 of slot 2 needs choice 1 in slot 0 or slot 1
        if row[2] != 2 or 1 in row[:2]:
            return row
        free = next(slot for slot in (0, 1) if slot not in kept)
        return tuple(1 if slot == free else place for slot, place in enumerate(row))

    rows = cover((3, 3, 3), repair=repair)
    assert set().union(*map(pairs_of, rows)) == set(all_pairs((3, 3, 3)))
    assert all(1 in row[:2] for row in rows if row[2] == 2)


def test_an_impossible_repair_is_an_error():
    with pytest.raises(ValueError, match="no possible row"):
        cover((2, 2), repair=lambda row, kept: (0, 0))
