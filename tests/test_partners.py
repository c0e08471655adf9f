"""Each part keeps so many partners, and none is left out."""

from collections import Counter

import pytest
from partners import left_out

pytest_plugins = ["pytester"]

MARK = "@pytest.mark.partners({count}, 'a', 'b')"
MODULE = """
import pytest

@pytest.mark.parametrize("b", range({size}))
@pytest.mark.parametrize("a", range({others}))
{mark}
def test_both(a, b):
    pass

def test_else():
    pass
"""


def collected(
    pytester: pytest.Pytester, *, count: int, size: int, others: int, select: str = ""
) -> list[tuple[str, ...]]:
    pytester.makeini("[pytest]\nmarkers = partners: few of many")
    pytester.makepyfile(test_it=MODULE.format(mark=MARK.format(count=count), size=size, others=others))
    items, _ = pytester.inline_genitems(*([f"test_it.py::{select}"] if select else []))
    gone = set(left_out(items))
    assert {item.name for item in gone} <= {item.name for item in items} - {"test_else"}
    return [tuple(item.callspec.id.split("-")) for item in items if item not in gone and item.name != "test_else"]


@pytest.mark.parametrize("others", [3, 8, 13])
def test_each_keeps_so_many_and_all_are_kept_by_some(pytester, others):
    kept = collected(pytester, count=3, size=8, others=others)
    assert len(kept) == len(set(kept)) == 3 * others
    assert set(Counter(first for first, _ in kept).values()) == {3}
    seconds = Counter(second for _, second in kept)
    assert len(seconds) == 8
    assert max(seconds.values()) - min(seconds.values()) <= 2


def test_few_are_all_kept_and_one_asked_for_alone_is_kept(pytester):
    assert len(collected(pytester, count=9, size=4, others=4)) == 16
    assert collected(pytester, count=1, size=4, others=4, select="test_both[0-0]") == [("0", "0")]
    assert collected(pytester, count=1, size=4, others=4, select="test_both[0-3]") == [("0", "3")]
