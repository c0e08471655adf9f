"""Nothing that a recipe is called can become markup."""

import pytest

from levelhead.report.markup import Markup, el, join, number


def test_text_is_escaped_and_markup_is_not():
    assert el("p", "a < b & c", el("b", "x>y")) == "<p>a &lt; b &amp; c<b>x&gt;y</b></p>"


def test_attributes_are_escaped_spelled_and_left_out():
    made = el("a", class_="k", data_s=3, title='say "<hi>"', hidden=True, lang=None, open=False)
    assert made == '<a class="k" data-s="3" title="say &quot;&lt;hi&gt;&quot;" hidden></a>'


def test_shapes_close_themselves_unless_they_hold_a_title():
    assert el("path", None, d="M0 0") == '<path d="M0 0"/>'
    assert el("path", el("title", "here"), d="M0 0") == '<path d="M0 0"><title>here</title></path>'
    assert el("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_nested_contents_are_flattened_and_none_is_nothing():
    assert join("a", None, ["b", (Markup("<br>"), 3)]) == "ab<br>3"


@pytest.mark.parametrize("value, text", [(3.0, "3"), (3.14159, "3.1"), (-0.01, "0"), (-2.25, "-2.2"), (0.05, "0.1")])
def test_a_coordinate_has_a_tenth_of_a_pixel(value, text):
    assert number(value) == text
