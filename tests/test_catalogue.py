"""Parts are found by existing, under their files' names."""

import pytest

from levelhead.catalogue import FAMILIES, family_of, find, name_of, names, parts, recipes
from levelhead.objectives.vat import VAT
from levelhead.recipe import DeepEnsemble


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_parts_under_their_files_names(family: str) -> None:
    assert parts(family)
    assert [name_of(spec) for spec in parts(family)] == list(names(family))
    assert {family_of(spec) for spec in parts(family)} == {family}


def test_private_files_hold_no_parts() -> None:
    assert not [name for family in FAMILIES for name in names(family) if name.startswith("_")]


def test_find_knows_names_and_the_nearest_ones() -> None:
    assert find("vat", ("surgeries", "objectives")) is VAT
    with pytest.raises(ValueError, match="'vatt' is no name in objectives: did you mean vat"):
        find("vatt", ("objectives",))
    with pytest.raises(ValueError, match=r"there are adversarial_training, .*vat"):
        find("xyzzy", ("objectives",))


def test_classes_outside_the_families_have_none() -> None:
    assert family_of(DeepEnsemble) == ""
    assert family_of(str) == ""


def test_recipes_are_the_functions_named_like_their_files() -> None:
    assert {"deep_ensembles", "sngp", "mixture_of_laplace"} <= set(recipes())
    assert all(function.__name__ == name for name, function in recipes().items())
