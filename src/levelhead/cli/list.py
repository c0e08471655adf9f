"""`levelhead list`: what there is to choose from."""

import dataclasses
import inspect
from typing import Annotated, Any

import typer

from levelhead.catalogue import name_of, parts, recipes, unknown
from levelhead.cli.console import out, print_json, simple_table
from levelhead.cli.options import AsJson
from levelhead.tasks.load import names
from levelhead.text import COMBINATORS, part_text

FAMILIES = {
    "recipes": "Named recipes: first in a line of text",
    "backbones": "Backbones: the network (--backbone)",
    "surgeries": "Surgeries: change the network's layers",
    "objectives": "Objectives: change the loss",
    "samplers": "Samplers: train the weights",
    "posthoc": "Post-hoc steps: after training, on the calibration rows",
    "combinators": "Combinators: wrap everything left of them",
    "spaces": "Spaces: what a search draws (inside hyper_deep_ensemble)",
    "subnetworks": "Subnetworks: which weights a posterior is over (laplace(subset=...))",
    "artificial": "Artificial inputs: where data are not (nomu_loss(points=...))",
    "evaluations": "Suites: what is measured (--suite)",
    "shifts": "Shifts: part of the suite `shift`",
    "attacks": "Attacks",
    "detectors": "Detectors: scores of the suite `ood`, and of the post-hoc step `ood_detector`",
    "tasks": "Tasks: data",
}


def list_parts(
    family: Annotated[
        str | None, typer.Argument(metavar="[FAMILY]", help=f"Only one of: {', '.join(FAMILIES)}.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List everything that a recipe can be made of, with the values that can be set.

    \b
    [bold]Examples[/bold]
      levelhead list
      levelhead list posthoc
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(unknown(family, list(FAMILIES), what="the list"))
    found = {name: entries(name) for name in ([family] if family else FAMILIES)}
    if as_json:
        print_json(found)
        return
    for name, rows in found.items():
        if rows:
            lines = [(row["name"], row["what"] + (f"  ({row['values']})" if row["values"] else "")) for row in rows]
            out().print(
                simple_table((name, "what it is (and what can be set, with its default)"), lines, title=FAMILIES[name])
            )
            out().print()


def entries(family: str) -> list[dict[str, str]]:
    """Name, first line of the docstring, and the fields, of each member of a family."""
    if family == "tasks":
        return tasks()
    if family == "recipes":
        return [{"name": n, "what": first_line(f), "values": parameters(f)} for n, f in sorted(recipes().items())]
    if family == "combinators":
        return [{"name": n, "what": first_line(c), "values": values(c)} for n, c in sorted(COMBINATORS.items())]
    return [{"name": name_of(spec), "what": first_line(spec), "values": values(spec)} for spec in parts(family)]


def tasks() -> list[dict[str, str]]:
    """The tasks that `load_task` knows by name."""
    return [{"name": name, "what": what, "values": ""} for name, what in names().items()]


def first_line(thing: Any) -> str:
    """What a docstring begins with: a method's file says it better than the formula of its class."""
    module = inspect.getmodule(thing)
    own = (
        module is not None
        and isinstance(thing, type)
        and thing.__name__.lower() == module.__name__.rpartition(".")[2].replace("_", "")
    )
    source = (module.__doc__ if own and module is not None else None) or inspect.getdoc(thing) or ""
    return " ".join(source.strip().split("\n\n")[0].split())


def values(spec: type) -> str:
    """The fields that can be set, with their defaults."""
    shown = []
    for field in dataclasses.fields(spec):
        if field.init and field.name not in ("member", "posthoc"):
            default = field.default if field.default is not dataclasses.MISSING else None
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            shown.append(f"{field.name}={plain(default)}")
    return ", ".join(shown)


def plain(value: Any) -> str:
    """A default as a recipe's text has it."""
    try:
        return part_text(value) if dataclasses.is_dataclass(value) else repr(value)
    except TypeError:
        return repr(value)


def parameters(function: Any) -> str:
    """The keyword arguments of a named recipe."""
    found = inspect.signature(function).parameters.values()
    return ", ".join(f"{p.name}={plain(p.default)}" for p in found if p.kind is p.KEYWORD_ONLY)
