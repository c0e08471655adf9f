"""The cover covers, is small, and is always the same."""

from collections import Counter
from itertools import islice
from math import prod

import pytest
from products.cover import all_pairs, cover, pairs_of


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 3, 3), (4, 6, 6, 3, 3, 4, 4, 3), (1, 5), (7, 1, 2)], ids=str)
def test_every_two_choices_meet(sizes):
    rows = list(cover(sizes))
    assert set().union(*map(pairs_of, rows)) == set(all_pairs(sizes))
    assert all(0 <= place < size for row in rows for place, size in zip(row, sizes, strict=True))
    assert rows == list(cover(sizes))
    largest, second = sorted(sizes)[-1], sorted(sizes)[-2]
    assert largest * second <= len(rows) <= min(prod(sizes), 2 * largest * second)


@pytest.mark.parametrize("sizes", [(4, 6, 6, 3, 3, 4, 4, 3), (6, 18, 18, 9, 9, 8, 18, 18, 3)], ids=str)
def test_the_first_rows_are_fair_to_every_choice(sizes):
    for turns in (1, 2, 4):
        rows = list(islice(cover(sizes), turns * max(sizes)))
        often = Counter(choice for row in rows for choice in enumerate(row))
        assert min(often[slot, place] for slot, size in enumerate(sizes) for place in range(size)) >= turns - 1


def test_pairs_are_counted_by_hand():
    assert all_pairs((2, 1)) == [((0, 0), (1, 0)), ((0, 1), (1, 0))]
    assert pairs_of((1, 0, 2)) == {((0, 1), (1, 0)), ((0, 1), (2, 2)), ((1, 0), (2, 2))}


def test_what_a_choice_needs_stands_beside_it():
    def repair(row, kept):  # choice 2 of slot 2 needs choice 1 in slot 0 or slot 1
        if row[2] != 2 or 1 in row[:2]:
            return row
        free = next((slot for slot in (0, 1) if slot not in kept), None)
        return (*row[:2], 0) if free is None else tuple(1 if k == free else place for k, place in enumerate(row))

    rows = list(cover((3, 3, 3), repair=repair))
    assert set().union(*map(pairs_of, rows)) == set(all_pairs((3, 3, 3)))
    assert all(1 in row[:2] for row in rows if row[2] == 2)


def test_an_impossible_repair_is_an_error():
    with pytest.raises(ValueError, match="no possible row"):
        list(cover((2, 2), repair=lambda row, kept: (0, 0)))
