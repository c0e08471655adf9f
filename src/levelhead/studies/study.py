"""A study: recipes x backbones x seeds on one task, as a plain value; and its form on disk, `study.toml`.

task = "fashion-mini"                  # or { name = "uci/yacht", data_dir = "../data" }
backbones = ["resnet8"]
recipes = ["plain", "mc_dropout + temperature", "my_package.recipes:tuned"]
seeds = 3                              # or [0, 1, 2]
suites = ["clean", "shift", "ood", "cost"]
engine = "local"
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from levelhead.network import Backbone
from levelhead.recipe import Fit
from levelhead.tasks.task import Task
from levelhead.types import LevelheadError

RecipeLike = str | Fit | Callable[..., Fit]
ENGINES = ("local",)
IN_FILE = ("task", "backbones", "recipes", "seeds", "suites", "engine")
DEFAULT_SEEDS = 3


class BadStudy(LevelheadError, ValueError):
    """A study that cannot run; the text lists everything that is wrong with it, so that one reading mends it."""


@dataclass(frozen=True)
class Study:
    """What is compared on what.

    task       a name that `load_task` knows, or a task at hand.
    recipes    lines of text, `module:function`, files recipe.json, functions of a backbone, or values with a `fit`.
    backbones  names or values, for the recipes that name none; empty where all do.
    seeds      one cell each; on a task with published splits, the split of that number is fitted with that seed.
               None: all published splits, or 0, 1, 2.
    suites     what is measured; None: everything that suits the task.
    options    further arguments of `load_task`, such as data_dir.
    changes    (path, value) pairs written into every recipe that has the path, such as ("sampler.epochs", 5).
    engine     what runs the cells.
    trust      modules that a recipe.json among the recipes may import.
    """

    task: str | Task
    recipes: tuple[RecipeLike, ...]
    backbones: tuple[str | Backbone, ...] = ()
    seeds: tuple[int, ...] | None = None
    suites: tuple[str, ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    engine: str = "local"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.recipes:
            raise BadStudy("Study: recipes is empty; name at least one, such as 'plain'. `levelhead list` shows parts")
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            raise BadStudy(f"Study: seeds wants different numbers from 0, at least one; got {self.seeds}")
        if self.engine not in ENGINES:
            raise BadStudy(f"Study: engine must be one of {', '.join(map(repr, ENGINES))}; got {self.engine!r}")

    @property
    def task_name(self) -> str:
        """The task's name."""
        return self.task if isinstance(self.task, str) else self.task.name


def as_seeds(given: Any) -> tuple[int, ...] | None:
    """`3` means 0, 1, 2; a sequence means itself."""
    if given is None:
        return None
    if isinstance(given, int):
        if given < 1:
            raise BadStudy(f"seeds: wants how many (at least one), or a list of them; got {given}")
        return tuple(range(given))
    if not isinstance(given, Sequence) or not all(isinstance(seed, int) for seed in given):
        raise BadStudy(f"seeds: wants how many, or a list of whole numbers; got {given!r}")
    return tuple(given)


def read_study(path: str | Path, **replacements: Any) -> Study:
    """The study that a TOML file describes; replacements stand in for what it says.

    Raises BadStudy for keys that a study does not have and for values of the wrong kind.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadStudy(f"{path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadStudy(f"{path} is no TOML: {error}") from None
    for key in found:
        if key not in IN_FILE:
            near = get_close_matches(key, IN_FILE, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadStudy(f"{path}: a study has no {key!r}{hint} It names {', '.join(IN_FILE)} and nothing else")
    for key in ("task", "recipes"):
        if key not in found:
            raise BadStudy(f"{path}: {key} is missing")
    name, options = _task(found["task"], path)
    made: dict[str, Any] = {"task": name, "options": options, "seeds": as_seeds(found.get("seeds"))}
    for key in ("recipes", "backbones", "suites"):
        if key in found:
            made[key] = _lines(found[key], key, path)
    if "engine" in found:
        made["engine"] = found["engine"]
    given = {key: value for key, value in replacements.items() if value not in (None, ())}  # those that say something
    if "options" in given:
        given["options"] = tuple({**dict(options), **dict(given["options"])}.items())
    assert set(given) <= {field.name for field in fields(Study)}
    return Study(**{**made, **given})


def _task(given: Any, path: Path) -> tuple[str, tuple[tuple[str, Any], ...]]:
    if isinstance(given, str):
        return given, ()
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return given["name"], tuple((key, value) for key, value in given.items() if key != "name")
    raise BadStudy(f'{path}: task wants a name, or {{ name = "uci/yacht", data_dir = "data" }}; got {given!r}')


def _lines(given: Any, key: str, path: Path) -> tuple[str, ...]:
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(line, str) for line in given):
        raise BadStudy(f"{path}: {key} wants a list of texts, got {given!r}")
    return tuple(given)
