"""HTML and SVG from Python: elements are functions of their content, and whatever is not markup is escaped."""

from collections.abc import Iterable
from html import escape
from typing import Any

LEAVES = {"circle", "line", "path", "polygon", "polyline", "rect"}  # of SVG: these may close themselves
VOID = {"br", "hr", "input", "meta", "wbr"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def el(name: str, /, *content: Any, **attributes: Any) -> Markup:
    """One element. Strings are escaped, Markup is not, None is left out, other iterables are flattened.

    Attributes: a trailing underscore is dropped (class_), others become dashes (aria_label); None and False are left
    out, True is written bare.
    """
    inside = join(*content)
    written = f"<{name}{_attributes(attributes)}"
    if name in VOID:
        return Markup(f"{written}>")
    if name in LEAVES and not inside:
        return Markup(f"{written}/>")
    return Markup(f"{written}>{inside}</{name}>")


def join(*content: Any) -> Markup:
    """Contents one after the other."""
    return Markup("".join(_pieces(content)))


def number(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough."""
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")
    )


def _pieces(content: Iterable[Any]) -> Iterable[str]:
    for item in content:
        if item is None:
            continue
        if isinstance(item, Markup):
            yield item
        elif isinstance(item, str):
            yield escape(item, quote=False)
        elif isinstance(item, Iterable):
            yield from _pieces(item)
        else:
            yield escape(str(item))


def _attributes(attributes: dict[str, Any]) -> str:
    written = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = name.removesuffix("_").replace("_", "-")
        if spelled == "viewbox":
            spelled = "viewBox"  # SVG's own spelling
        if isinstance(value, float):
            value = number(value)
        written.append(f" {spelled}" if value is True else f' {spelled}="{escape(str(value))}"')
    return "".join(written)
