"""The Pareto front."""

from hypothesis import given
from hypothesis import strategies as st
from report.runs import classification

from levelhead.report.cost import Point, front, pareto
from levelhead.report.evidence import Contender, Estimate, read
from levelhead.report.figure import Series

values = st.floats(0.1, 100.0).map(lambda value: round(value, 1))


def point(cost: float, nll: float) -> Point:
    return Point(Contender(Series(1, "any"), "any", "resnet8", "0", ()), cost, Estimate(nll, 0.1, 3))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=12))
def test_the_front_holds_what_nothing_beats_in_both(pairs):
    points = [point(*pair) for pair in pairs]

    def beaten(one: Point) -> bool:
        return any(
            other.cost <= one.cost
            and other.quality.mean <= one.quality.mean
            and (other.cost, other.quality.mean) != (one.cost, one.quality.mean)
            for other in points
        )

    expected = {(p.cost, p.quality.mean) for p in points if not beaten(p)}
    found = [(p.cost, p.quality.mean) for p in front(points)]
    assert set(found) == expected
    assert found == sorted(found)
    assert len(found) == len(expected)


def test_costs_are_relative_to_the_plain_recipe(tmp_path):
    made = pareto(read(classification(tmp_path, seeds=(0,), shifts=(), rows=60))[0])
    assert made is not None
    assert "cost 1<" in made  # plain
    assert "cost 8<" in made  # mc_dropout


def test_a_single_recipe_has_no_front(tmp_path):
    from report.runs import PLAIN

    assert pareto(read(classification(tmp_path, (PLAIN,), seeds=(0,), shifts=(), rows=60))[0]) is None
