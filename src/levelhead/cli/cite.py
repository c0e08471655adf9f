"""`levelhead cite`: the papers behind a recipe."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from levelhead.backbones.mlp import MLP
from levelhead.catalogue import recipes
from levelhead.cli.console import print_json
from levelhead.cli.options import AsJson, Backbones, Trust, split_commas
from levelhead.studies.grid import read_backbone
from levelhead.studies.store import find_cells, read_json
from levelhead.text import parse
from levelhead.types import Reference
from levelhead.values import from_json, resolve

SPOKEN = re.compile(r"([A-Z][\w'-]+(?:(?:,| and| &)? [A-Z][\w'-]+)*(?: et al\.)?),? \(?arXiv:? ?(\d{4}\.\d{4,5})")


def cite(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A line of text, a recipe.json, or a folder of runs.", show_default=False
        ),
    ],
    backbone: Backbones = None,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Print BibTeX for the papers of all parts of a recipe.

    \b
    [bold]Examples[/bold]
      levelhead cite "resnet20 + mc_dropout + vat + deep_ensemble"
      levelhead cite runs/fashion-mini
    """
    found: dict[str, tuple[str, Reference]] = {}
    for value in values(recipe, split_commas(backbone), trust=tuple(trust or ())):
        for name, reference in references(value):
            found.setdefault(key_of(reference), (name, reference))
    for name, reference in named(recipe):
        if reference.arxiv is None or all(reference.arxiv != known.arxiv for _, known in found.values()):
            found.setdefault(key_of(reference), (name, reference))
    if as_json:
        print_json([{"key": key, "part": name, **dataclasses.asdict(ref)} for key, (name, ref) in found.items()])
    elif not found:
        print(f"% no part of {recipe} names a paper")
    else:
        print("\n\n".join(bibtex(key, name, reference) for key, (name, reference) in found.items()))


def values(recipe: str, backbones: tuple[str, ...], *, trust: tuple[str, ...] = ()) -> Iterator[Any]:
    """The recipes that the words mean."""
    path = Path(recipe)
    if path.exists():
        files = [path] if path.is_file() else [folder / "recipe.json" for folder in find_cells(path)]
        saved = {known["digest"]: known for file in files if (known := read_json(file)) is not None}
        if not saved:
            raise FileNotFoundError(f"{path} holds no run folders")
        for known in saved.values():
            yield from_json(known["json"], trust=trust)
    elif re.fullmatch(r"[\w.]+:[\w.]+", recipe):
        function = resolve(recipe, trust=("*",))
        yield function(MLP()) if inspect.isfunction(function) else function
    else:
        for backbone in backbones or (None,):
            yield parse(recipe, backbone=MLP() if backbone is None else read_backbone(backbone))


def references(value: Any) -> Iterator[tuple[str, Reference]]:
    """The references of a value and of everything in it, outermost first."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from references(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        known = getattr(type(value), "reference", None)
        if isinstance(known, Reference):
            yield type(value).__name__, known
        else:
            yield from spoken(type(value).__name__, inspect.getdoc(type(value)) or "")
        for field in dataclasses.fields(value):
            yield from references(getattr(value, field.name))


def named(recipe: str) -> Iterator[tuple[str, Reference]]:
    """The papers of the named recipes in a line."""
    for word in re.findall(r"\w+", recipe):
        if word in recipes():
            yield from spoken(word, inspect.getdoc(recipes()[word]) or "")


def spoken(name: str, text: str) -> Iterator[tuple[str, Reference]]:
    """A paper that the first paragraph of a docstring names, as `Authors et al., arXiv 1234.56789`."""
    match = SPOKEN.search(text.split("\n\n")[0])
    if match:
        year = 2000 + int(match[2][:2])
        yield name, Reference(match[1], year, arxiv=match[2])


def key_of(reference: Reference) -> str:
    """`miyato2017virtual`: the first author, the year, the first long word of the title."""
    first = re.sub(r"\W", "", re.split(r"[,&]| and | et al", reference.authors)[0].split()[-1]).lower()
    word = next((w.lower() for w in re.findall(r"[A-Za-z]+", reference.title) if len(w) > 3), "")
    return f"{first}{reference.year}{word}"


def bibtex(key: str, name: str, reference: Reference) -> str:
    """One entry; what is not known is left out."""
    people = re.sub(r",? et al\.?$", " and others", reference.authors)
    people = " and ".join(part.strip() for part in re.split(r",|&| and ", people) if part.strip())
    lines = [f"  author = {{{people}}}", f"  year = {{{reference.year}}}"]
    if reference.title:
        lines.insert(1, f"  title = {{{{{reference.title}}}}}")
    if reference.arxiv:
        lines += [f"  eprint = {{{reference.arxiv}}}", "  archivePrefix = {arXiv}"]
    return f"% {name}\n@misc{{{key},\n" + ",\n".join(lines) + "\n}"
