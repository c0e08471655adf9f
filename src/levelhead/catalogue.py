"""What exists: parts are found by walking their family's package, so a new file is there the moment it exists."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

FAMILIES = (
    "backbones",
    "surgeries",
    "objectives",
    "samplers",
    "posthoc",
    "evaluations",
    "shifts",
    "attacks",
    "spaces",
    "detectors",
    "artificial",
    "subnetworks",
)


@functools.cache
def parts(family: str) -> tuple[type, ...]:
    """The specs of a family, in order of name: one public frozen dataclass a file, named like the file."""
    return tuple(spec for _, spec in sorted(_specs(family).items()))


def names(family: str) -> tuple[str, ...]:
    """The names by which text and the command line know a family's specs: their files' names."""
    return tuple(sorted(_specs(family)))


@functools.cache
def _specs(family: str) -> dict[str, type]:
    found: dict[str, type] = {}
    for file in _files(family):
        module = importlib.import_module(f"levelhead.{family}.{file}")
        wanted = file.replace("_", "")
        for name, thing in vars(module).items():
            if (
                isinstance(thing, type)
                and thing.__module__ == module.__name__
                and dataclasses.is_dataclass(thing)
                and name.lower() == wanted
            ):
                found[file] = thing
    return found


@functools.cache
def recipes() -> dict[str, Callable[..., Any]]:
    """The named recipes: in each file of `recipes`, the function named like the file."""
    found: dict[str, Callable[..., Any]] = {}
    for file in _files("recipes"):
        module = importlib.import_module(f"levelhead.recipes.{file}")
        function = getattr(module, file, None)
        if inspect.isfunction(function):
            found[file] = function
    return found


def name_of(spec: type) -> str:
    """The name by which text knows a spec's class: its file's."""
    return spec.__module__.rpartition(".")[2]


def family_of(spec: type) -> str:
    """The family a spec's class belongs to, or "" for classes outside."""
    parts_of_path = spec.__module__.split(".")
    return parts_of_path[1] if len(parts_of_path) == 3 and parts_of_path[0] == "levelhead" else ""


def find(name: str, families: tuple[str, ...]) -> type:
    """The spec of that name. Raises ValueError with the nearest names."""
    for family in families:
        if name in _specs(family):
            return _specs(family)[name]
    known = [known for family in families for known in _specs(family)]
    raise ValueError(unknown(name, known, what=" or ".join(families)))


def unknown(name: str, known: list[str], *, what: str) -> str:
    """The text of an error for a name that nobody knows."""
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}."
    return f"{name!r} is no name in {what}: {hint}"


def _files(package: str) -> list[str]:
    folder = importlib.import_module(f"levelhead.{package}")
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))
