"""What every figure is made of."""

import html
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelhead.report.figure import COLOURS, MARKERS, Series, Table, breakable, end_labels, figure, key, spread, svg


def test_56_recipes_look_different():
    looks = set()
    for number in range(1, COLOURS * MARKERS + 1):
        series = Series(number, "any")
        looks.add((series.colour, series.marker(0, 0)))
    assert len(looks) == COLOURS * MARKERS


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted))
def test_labels_keep_their_order_their_distance_and_their_room(wanted):
    places = spread(wanted, gap=8.0, low=0.0, high=100.0)
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)
    assert all(b - a >= 8.0 - 1e-9 for a, b in pairwise(places))


def test_labels_stay_where_there_is_nothing_in_their_way():
    assert spread([10.0, 30.0, 90.0], gap=8.0, low=0.0, high=100.0) == [10.0, 30.0, 90.0]


def test_labels_that_do_not_fit_share_the_room():
    assert spread([5.0] * 6, gap=8.0, low=0.0, high=20.0) == pytest.approx([0.0, 4.0, 8.0, 12.0, 16.0, 20.0], abs=5.1)


def test_end_labels_name_each_line():
    made = end_labels([(Series(1, "a"), 90.0, 10.0), (Series(12, "b"), 90.0, 11.0)], x=100.0, low=0.0, high=50.0)
    assert re.findall(r"<text[^>]*>(\d+)</text>", made) == ["1", "12"]


def test_a_picture_has_a_name_and_a_description():
    made = svg("here", (10, 20), title="What", text="So much < that")
    assert 'role="img"' in made
    assert 'aria-labelledby="here-t"' in made
    assert '<title id="here-t">What</title>' in made
    assert '<desc id="here-d">So much &lt; that</desc>' in made


def test_a_figure_has_caption_key_and_numbers():
    table = Table(("Recipe", "Value"), (("a", "1"),)).markup("All of it")
    made = figure([("Head", svg("x", (1, 1), title="t", text="d"))], caption="Why", of=[Series(3, "c")], numbers=table)
    assert "<figcaption>Why</figcaption>" in made
    assert 'aria-label="Recipes"' in made
    assert '<th scope="row">a</th>' in made
    assert '<th scope="col">Value</th>' in made


def test_a_key_can_be_pressed():
    assert 'type="button" data-s="4"' in key([Series(4, "vat")])


@pytest.mark.parametrize(
    "name", ["plain", "batch_ensemble(num_members=4)", "a(b=(1, 2)) + <c>", "", "__x__", "my.mod:f"]
)
def test_breaking_a_name_loses_nothing(name):
    assert html.unescape(breakable(name).replace("<wbr>", "")) == name
