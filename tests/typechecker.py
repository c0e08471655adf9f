"""The run-time checker behind every shape annotation of the library, while the tests run."""

from collections.abc import Callable
from typing import Any, Self, TypeVar, Union, get_args, get_origin

from beartype import BeartypeConf, beartype

# As in static typing, an int is welcome where a float is wanted: `VAT(eps=8)` is no mistake.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the arguments and the result of every call, as far as beartype can (`checkable`)."""
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: checkable(hint) for name, hint in hints.items()}
    return _checked(function)


def checkable(hint: Any) -> Any:
    """The hint with Any in place of `Self` and of protocols, which are left to the static checker.

    The import hook hands over methods one by one and beartype knows `Self` only in whole classes; a protocol that is
    not runtime_checkable admits no isinstance, and one that is would evaluate every property at every call.
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
