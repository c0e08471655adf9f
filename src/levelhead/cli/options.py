"""Options that several verbs have, declared once, and the reading of their values."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from levelhead.studies.study import as_seeds

FITTING, MEASURING, RUNNING = "What is fitted", "What is measured", "Where and how it runs"

Backbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        "-b",
        help="Network for the recipes that name none: resnet20, lenet, mlp(hidden=(50, 50)), or my_module:function. "
        "Repeat it to compare several.",
        rich_help_panel=FITTING,
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        "-s",
        metavar="N or LIST",
        help="How many seeds, or which: 3, or 0,1,2. On uci/NAME seed k is the published split k. "
        "[dim]default: 3, or all 20 splits[/dim]",
        rich_help_panel=FITTING,
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value in every recipe that has it: --set sampler.epochs=5 --set surgery.mc_dropout.p=0.2",
        rich_help_panel=FITTING,
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder with the task's files, if it reads any.", rich_help_panel=FITTING, show_default=False
    ),
]
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        metavar="NAMES",
        help="What to measure: clean,shift,ood,cost, or with settings: 'shift(severities=(1, 5), limit=500)'. "
        "`compare --suite ovadia` is a whole study. [dim]default: all that suit the task[/dim]",
        rich_help_panel=MEASURING,
        show_default=False,
    ),
]
Root = Annotated[
    Path, typer.Option("--root", help="Folder that keeps all results.", rich_help_panel=RUNNING, show_default=True)
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        min=1,
        help="Processes of one thread each. [dim]default: one a core[/dim]",
        rich_help_panel=RUNNING,
        show_default=False,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="Where tensors live: cpu, cuda, cuda:1.", rich_help_panel=RUNNING)
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="MODULE",
        help="A module of your own that saved files may name and import. Files of strangers can name anything.",
        rich_help_panel=RUNNING,
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.", rich_help_panel=RUNNING)
]


def split_commas(given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of repeated options, at the commas outside of brackets."""
    found: list[str] = []
    for text in given or ():
        depth, start = 0, 0
        for place, char in enumerate(text):
            depth += (char in "([") - (char in ")]")
            if char == "," and depth == 0:
                found.append(text[start:place])
                start = place + 1
        found.append(text[start:])
    return tuple(name.strip() for name in found if name.strip())


def read_seeds(given: str | None) -> tuple[int, ...] | None:
    """`3` is 0, 1, 2; `0,4` and `4,` are what they say."""

    if given is None:
        return None
    try:
        value = ast.literal_eval(given)
    except (ValueError, SyntaxError):
        raise ValueError(f"--seeds wants how many (3) or which (0,1,2), got {given!r}") from None
    return as_seeds(value if isinstance(value, int | tuple | list) else given)


def read_changes(given: Sequence[str] | None) -> tuple[tuple[str, Any], ...]:
    """(path, value) of each `path=value`; what is no Python value is text."""
    found = []
    for text in given or ():
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ValueError(f"--set wants PATH=VALUE, such as sampler.epochs=5; got {text!r}")
        found.append((path.strip(), read_value(value.strip())))
    return tuple(found)


def read_value(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def task_options(data_dir: Path | None) -> tuple[tuple[str, Any], ...]:
    """The options of `load_task` that the command line has."""
    return () if data_dir is None else (("data_dir", str(data_dir)),)
