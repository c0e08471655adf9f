"""Every part has its place in the docs: its name occurs on some page of docs/methods/."""

import re

import pytest

from levelhead.catalogue import names


@pytest.mark.parametrize("family", ["surgeries", "objectives", "samplers", "posthoc", "detectors"])
def test_every_part_is_on_a_page_of_the_methods(family, pytestconfig):
    pages = (pytestconfig.rootpath / "docs" / "methods").glob("*.md")
    words = {word for page in pages for word in (page.stem, *re.findall(r"\w+", page.read_text(encoding="utf-8")))}
    assert [name for name in names(family) if name not in words] == []
