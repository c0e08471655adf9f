"""The run-time checker behind every annotation of the library, while the tests run: types, and shapes within a call.

Each function of the library is checked once on its way in and once on its way out. jaxtyping's own hook asks every
question twice and wraps functions inside functions anew at every call, which takes the suite twice as long; those
inside others, which nobody calls from outside, are left to the static checker here.
"""

import ast
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Self, TypeVar, Union, get_args, get_origin

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

# As in static typing, an int is welcome where a float is wanted: `VAT(eps=8)` is no mistake.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))
NAME = "__check__"  # of `check` inside the modules of the library


def install(package: str) -> None:
    """From here on, what is imported of the package is checked in every call."""
    sys.meta_path.insert(0, _Finder(package))


def check(thing: Any) -> Any:
    """A function whose arguments and result are checked in every call; of a class, a dataclass's constructor."""
    if isinstance(thing, type):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = check(thing.__init__)  # type: ignore[misc]
        return thing
    thing.__annotations__ = {name: checkable(hint) for name, hint in thing.__annotations__.items()}
    inner = checking(thing)

    # What torch compiles is followed line by line: the library's code there, not the checker's.
    def checked(*args: Any, **kwargs: Any) -> Any:
        return (thing if torch.compiler.is_compiling() else inner)(*args, **kwargs)

    def yielding(*args: Any, **kwargs: Any) -> Any:  # a generator function stays one
        return (yield from (thing if torch.compiler.is_compiling() else inner)(*args, **kwargs))

    return functools.wraps(thing)(yielding if inspect.isgeneratorfunction(thing) else checked)


def checking(thing: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its checks around it."""
    arrays = [array for hint in thing.__annotations__.values() for array in arrays_in(hint)]
    if inspect.isgeneratorfunction(thing) or any("{" in array.dim_str for array in arrays):
        return jaxtyped(thing, typechecker=_checked)  # which knows how to ask about yields and about `{size}`
    inner = _checked(thing)
    if not arrays:
        return inner

    def within(*args: Any, **kwargs: Any) -> Any:
        with jaxtyped("context"):  # an axis means the same in all arguments and the result
            return inner(*args, **kwargs)

    return within


def checkable(hint: Any) -> Any:
    """The hint with Any in place of `Self` and of protocols, which are left to the static checker.

    Methods come one by one and beartype knows `Self` only in whole classes; a protocol that is not runtime_checkable
    admits no isinstance, and one that is would evaluate every property at every call.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Self or getattr(origin or hint, "_is_protocol", False):
        return Any
    if isinstance(hint, TypeVar):
        return Any if getattr(hint.__bound__, "_is_protocol", False) else hint
    if origin is Callable or not any(checkable(argument) is not argument for argument in arguments):
        return hint
    arguments = tuple(checkable(argument) for argument in arguments)
    return Union[arguments] if _is_union(hint) else origin[arguments]  # noqa: UP007 - the members are computed


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, type(int | str))


def arrays_in(hint: Any) -> list[type[AbstractArray]]:
    """The shaped arrays that a hint mentions, at whatever depth."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return [hint]
    return [array for argument in get_args(hint) for array in arrays_in(argument)]


class _Decorating(ast.NodeTransformer):
    """`check` as the innermost decorator of every function of a module or class, and the outermost of every class."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list.append(ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return node  # without a visit to what is inside

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list.insert(0, ast.copy_location(ast.Name(NAME, ast.Load()), node))
        self.generic_visit(node)
        return node


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)  # always from the source: the bytecode beside it knows no checks
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, **how: Any) -> CodeType:
        tree = _Decorating().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[NAME] = check
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
