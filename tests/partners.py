"""Which parts of one family meet which of another where all of them would be too many: a choice that stays."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest


def left_out(items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
    """The cases that a test marked `partners(count, first, second)` leaves out.

    Each value of its parameter `first` keeps `count` of `second`, spread so evenly that each of those is kept by about
    as many. The number of cases grows with the parts and not with their square; the order of parts by a hash of what
    they are makes the choice the same in every process, and much the same after a part came or went.
    """
    tests = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("partners"):
            tests[item.path, item.originalname].append(item)
    for cases in tests.values():
        mark = cases[0].get_closest_marker("partners")
        assert mark is not None
        count, *names = mark.args
        of = [[repr(case.callspec.params[name]) for case in cases] for name in names]
        firsts, seconds = (sorted(set(values), key=_mixed) for values in of)
        for case, first, second in zip(cases, *of, strict=True):
            start = firsts.index(first) * len(seconds) // len(firsts)
            if (seconds.index(second) - start) % len(seconds) >= count:
                yield case


def _mixed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
