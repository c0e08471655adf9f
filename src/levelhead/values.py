"""Recipes as values: JSON and back, a digest, and paths into them. Works on any frozen dataclass of plain values.

A dataclass is {"class": "module:Name", "fields": {...}}, a function {"function": "module:name"}; lists are tuples.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from levelhead.types import LevelheadError

Json = Any
TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # module:function


class UntrustedPath(LevelheadError):
    """A saved file names code outside this library, and the caller did not say that it may be imported."""


class NoSuchPath(LevelheadError, AttributeError):
    """A path into a recipe that leads nowhere; the text names the fields that exist."""


def to_json(value: Any) -> Json:
    """Plain JSON of a value, numbers coerced to their field's type, so that equal recipes have equal JSON.

    Raises TypeError for what has no plain form (tensors, lambdas, open files).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = field_types(type(value))
        fields = {
            f.name: to_json(coerce(getattr(value, f.name), hints[f.name])) for f in dataclasses.fields(value) if f.init
        }
        return {"class": import_path(type(value)), "fields": fields}
    if isinstance(value, Mapping):
        return [[to_json(key), to_json(item)] for key, item in sorted(value.items())]
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return {"function": import_path(value)}
    raise TypeError(
        f"{value!r} has no plain form. Fields of a recipe hold numbers, strings, tuples, other parts, or functions "
        "that can be imported by name"
    )


def from_json(data: Json, *, trust: tuple[str, ...] = ()) -> Any:
    """The value of `to_json`'s output. Imports only `levelhead` and the top-level modules named in `trust`.

    Raises UntrustedPath for anything else, texts that read `module:function` included (a backbone may call them), and
    ValueError for fields that the class does not have.
    """
    if isinstance(data, list):
        return tuple(from_json(item, trust=trust) for item in data)
    if not isinstance(data, dict):
        return data
    if "function" in data:
        return resolve(data["function"], trust=trust)
    cls: Any = resolve(data["class"], trust=trust)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"{data['class']} is no dataclass, so no part of a recipe")
    hints = field_types(cls)
    unknown = set(data["fields"]) - set(hints)
    if unknown:
        raise ValueError(f"{data['class']} has no field {sorted(unknown)}; it has {sorted(hints)}")
    for item in data["fields"].values():
        if isinstance(item, str) and TARGET.fullmatch(item):
            resolve(item, trust=trust)
    return cls(**{name: coerce(from_json(item, trust=trust), hints[name]) for name, item in data["fields"].items()})


def digest(*values: Any) -> str:
    """Twelve hex digits that name values: equal recipes share them. A user's `module:function` adds its source."""
    text = json.dumps([to_json(value) for value in values], sort_keys=True) + "".join(_sources(values))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _sources(value: Any) -> list[str]:
    """Source text of the foreign functions and classes that a value names."""
    if isinstance(value, tuple | list):
        return [text for item in value for text in _sources(item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = [] if type(value).__module__.startswith("levelhead.") else [inspect.getsource(type(value))]
        target = getattr(value, "target", None)
        named = [inspect.getsource(resolve(target, trust=("*",)))] if isinstance(target, str) and ":" in target else []
        return own + named + _sources([getattr(value, f.name) for f in dataclasses.fields(value)])
    if inspect.isfunction(value):
        return [inspect.getsource(value)]
    return []


def import_path(thing: Callable[..., Any]) -> str:
    """`module:Name`, from which `resolve` finds it again."""
    return f"{thing.__module__}:{thing.__qualname__}"


def resolve(path: str, *, trust: tuple[str, ...] = ()) -> Any:
    """What `module:Name` names. Only `levelhead` and top-level modules in `trust` are imported ("*": any)."""
    module, _, name = path.partition(":")
    _check_trust(path, module, trust)
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    _check_trust(path, getattr(found, "__module__", None) or module, trust)  # `levelhead.storage:os.system` is not ours
    return found


def _check_trust(path: str, module: str, trust: tuple[str, ...]) -> None:
    root = module.split(".")[0]
    if root != "levelhead" and root not in trust and "*" not in trust:
        raise UntrustedPath(
            f"{path!r} names code outside levelhead. If you trust it, say so: trust=({root!r},), or --trust {root}"
        )


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The init fields of a dataclass and their annotated types."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def coerce(value: Any, annotation: Any) -> Any:
    """`value` as its field's type wants it: ints in float fields become floats, lists become tuples."""
    if isinstance(value, list):
        value = tuple(value)
    options = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        return float(value)
    if isinstance(value, tuple):
        for option in options:
            inner = typing.get_args(option)
            if typing.get_origin(option) is tuple and len(inner) == 2 and inner[1] is Ellipsis:
                return tuple(coerce(item, inner[0]) for item in value)
            if typing.get_origin(option) is tuple and len(inner) == len(value):
                return tuple(coerce(item, kind) for item, kind in zip(value, inner, strict=True))
    return value


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value suits a field's annotation; types that are not plain accept anything."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    if origin is tuple:
        return isinstance(value, tuple)
    if annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    return True


def get_path(value: Any, path: str) -> Any:
    """What stands at a path like `sampler.lr`, `surgery.0.p` or `surgery.mc_dropout.p`."""
    for step in path.split("."):
        value = _child(value, step, path)[1]
    return value


def set_path(value: Any, path: str, new: Any) -> Any:
    """A copy of `value` with `new` at `path`. Raises NoSuchPath, or TypeError where the type does not fit."""
    step, _, rest = path.partition(".")
    key, old = _child(value, step, path)
    if rest:
        new = set_path(old, rest, new)
    elif dataclasses.is_dataclass(value):
        annotation = field_types(type(value))[key]  # type: ignore[index,arg-type]
        new = coerce(new, annotation)
        if not fits(new, annotation):
            wanted = annotation.__name__ if isinstance(annotation, type) else annotation
            raise TypeError(f"{path}: {type(value).__name__}.{key} wants {wanted}, got {new!r}")
    if isinstance(value, tuple):
        return tuple(new if index == key else item for index, item in enumerate(value))
    return dataclasses.replace(value, **{typing.cast(str, key): new})


def _child(value: Any, step: str, path: str) -> tuple[str | int, Any]:
    """The key and value behind one step of a path."""
    if isinstance(value, tuple):
        names = [snake(type(item).__name__) for item in value]
        if step.isdigit() and int(step) < len(value):
            return int(step), value[int(step)]
        if step in names:
            return names.index(step), value[names.index(step)]
        raise NoSuchPath(f"{path}: no {step!r} among {names or 'no parts at all'}; use a name, or a number from 0")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        known = [f.name for f in dataclasses.fields(value) if f.init]
        if step in known:
            return step, getattr(value, step)
        near = get_close_matches(step, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise NoSuchPath(f"{path}: {type(value).__name__} has no field {step!r}; it has {known}{hint}")
    raise NoSuchPath(f"{path}: {value!r} has no parts, so no {step!r}")


def snake(name: str) -> str:
    """`MCDropout` -> `mc_dropout`, `FLCPool2d` -> `flc_pool2d`."""
    out = ""
    for before, char, after in zip(" " + name, name, name[1:] + " ", strict=False):
        starts = char.isupper() and (before.islower() or before.isdigit() or (before.isupper() and after.islower()))
        out += ("_" if starts and out else "") + char.lower()
    return out
