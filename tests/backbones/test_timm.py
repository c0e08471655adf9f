"""Without timm; with it, tests/interop/test_backbones.py."""

import sys

import pytest

from levelhead.backbones.timm import Timm
from levelhead.likelihood import Signature
from levelhead.types import MissingExtra


def test_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r'timm .*pip install "levelhead\[vision\]"'):
        Timm()(Signature((3, 32, 32)))


def test_options_of_a_mapping_are_sorted_pairs():
    assert Timm(options={"b": 2, "a": 1}) == Timm(options=(("b", 2), ("a", 1)))
    assert Timm(options={"b": 2, "a": 1}).options == (("a", 1), ("b", 2))
