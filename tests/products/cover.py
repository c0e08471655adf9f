"""All-pairs covers: few rows in which every two choices of different slots meet (greedy, after Cohen et al. 1997)."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

Row = tuple[int, ...]  # for every slot, the place of its choice
Choice = tuple[int, int]  # slot, place
Pair = tuple[Choice, Choice]


def pairs_of(row: Row) -> set[Pair]:
    """The pairs of choices that meet in a row."""
    return set(itertools.combinations(enumerate(row), 2))


def all_pairs(sizes: Sequence[int]) -> list[Pair]:
    """Every pair of choices of different slots, in order."""
    choices = [[(slot, place) for place in range(size)] for slot, size in enumerate(sizes)]
    return [pair for a, b in itertools.combinations(choices, 2) for pair in itertools.product(a, b)]


def cover(sizes: Sequence[int], *, repair: Callable[[Row, frozenset[int]], Row] | None = None) -> Iterator[Row]:
    """Rows that cover all pairs of `sizes[k]` choices in each slot k. The same sizes give the same rows.

    repair  makes a row possible (a choice may need another beside it) without moving the slots it is told to keep.

    Each row starts from an uncovered pair of the choices that were seldom chosen so far, so that the first rows alone
    are fair to all; every other slot then takes the choice that meets the most uncovered pairs. Raises ValueError where
    repair undoes the pair that a row was made for.
    """
    open_pairs = dict.fromkeys(all_pairs(sizes))
    often: Counter[Choice] = Counter()
    for turn in itertools.count():
        if not open_pairs:
            return
        rarest = min(open_pairs, key=lambda pair: sorted(often[choice] for choice in pair))
        chosen: dict[int, int] = dict(rarest)
        kept = frozenset(chosen)
        for slot in (slot for slot in range(len(sizes)) if slot not in kept):
            gains = [_gain((slot, place), chosen, open_pairs) for place in range(sizes[slot])]
            best = max(gains)
            ties = [place for place, gain in enumerate(gains) if gain == best]
            chosen[slot] = ties[turn % len(ties)]  # not always the first: rows are to differ where nothing decides
        row = tuple(chosen[slot] for slot in range(len(sizes)))
        if repair is not None:
            row = repair(row, kept)
        met = pairs_of(row) & set(open_pairs)
        if not met:
            raise ValueError(f"cover: no possible row holds {rarest}; repair gave {row}")
        for pair in met:
            del open_pairs[pair]
        often.update(enumerate(row))
        yield row


def _gain(choice: Choice, chosen: dict[int, int], open_pairs: dict[Pair, None]) -> int:
    return sum(tuple(sorted((choice, other))) in open_pairs for other in chosen.items())
