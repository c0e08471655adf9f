"""One public spec a file, named like the file, buildable without arguments: so that a new file is a new part."""

import dataclasses
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

from levelhead.types import Reference

PAPERS = ("surgeries", "objectives", "samplers", "posthoc", "detectors")  # a part of these comes from somewhere
FAMILIES = (*PAPERS, "evaluations", "backbones")


def modules(*families: str) -> list[str]:
    """Import paths of the families' files, without importing them: a broken file fails one test and not them all.

    A leading underscore marks what several files of a family share (samplers/_gradient.py): no part.
    """
    packages = [importlib.import_module(f"levelhead.{family}") for family in families]
    paths = [f"{p.__name__}.{info.name}" for p in packages for info in pkgutil.iter_modules(p.__path__)]
    return [path for path in paths if not path.rpartition(".")[2].startswith("_")]


def specs(module: ModuleType) -> list[type]:
    """The public frozen dataclasses that the file itself defines."""
    own = [thing for thing in vars(module).values() if inspect.isclass(thing) and thing.__module__ == module.__name__]
    return [cls for cls in own if not cls.__name__.startswith("_") and is_frozen(cls)]


def is_frozen(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen


@pytest.fixture
def module(request) -> ModuleType:
    return importlib.import_module(request.param)


@pytest.mark.parametrize("module", modules(*FAMILIES), indirect=True)
def test_a_file_defines_one_spec_with_its_name(module):
    name = module.__name__.rpartition(".")[2]
    found = [cls.__name__ for cls in specs(module)]
    assert [cls.lower() for cls in found] == [name.replace("_", "")], f"{name}.py defines the specs {found}"


@pytest.mark.parametrize("module", modules(*FAMILIES), indirect=True)
def test_every_field_has_a_default(module):
    for cls in specs(module):
        missing = dataclasses.MISSING
        bare = [f.name for f in dataclasses.fields(cls) if f.init and f.default is f.default_factory is missing]
        assert not bare, f"{cls.__name__}: no default for {bare}"
        assert cls() == cls()
        assert hash(cls()) == hash(cls())


@pytest.mark.parametrize("module", modules(*FAMILIES), indirect=True)
def test_a_spec_says_what_it_is(module):
    for cls in specs(module):
        # dataclass() writes a signature where the author wrote nothing
        assert cls.__doc__, cls.__name__
        assert not cls.__doc__.startswith(f"{cls.__name__}("), f"{cls.__name__} has no docstring"


@pytest.mark.parametrize("module", modules(*PAPERS), indirect=True)
def test_a_method_names_its_paper(module):
    for cls in specs(module):
        assert isinstance(getattr(cls, "reference", None), Reference), (
            f"{cls.__name__}: reference: ClassVar = Reference(...)"
        )
        assert "reference" not in {field.name for field in dataclasses.fields(cls)}, f"{cls.__name__}: a ClassVar"
