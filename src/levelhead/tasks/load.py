"""Tasks by name.

The name is the place: `two-moons` is the function `two_moons` of `levelhead.tasks.two_moons`. What follows a slash or a
colon is its first argument (`uci/yacht`, `csv:wine.csv`). Anybody's `module:function` that makes a Task is a name too.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import levelhead.tasks
from levelhead.tasks.corrupted import with_corrupted
from levelhead.tasks.held_out import without_classes
from levelhead.tasks.task import Task


def load_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    corrupted: str | Path | None = None,
    holdout_classes: Sequence[int] = (),
    **options: Any,
) -> Task:
    """The task of this name; `options` are arguments of its loader, such as seed or split.

    `data_dir` is where the files of named data sets are looked for (data_dir/uci, data_dir/cifar10, ...); tasks that
    need none do not look. `corrupted` is a folder like CIFAR-10-C, MNIST-C or ImageNet-C, whose sets become shifts of
    the task; see `levelhead.tasks.corrupted`. `holdout_classes` are labels that the task loses: their test rows are its
    near out-of-distribution set; see `levelhead.tasks.held_out`.

    Raises ValueError for an unknown name, with the nearest ones, and TypeError for an option that the loader does not
    have.
    """
    stem, separator, argument = re.fullmatch(r"([^/:]*)([/:]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    module = loader_module(stem)
    if module is not None:
        loader = own_function(module)
    elif separator == ":" and stem and argument.isidentifier():
        loader, argument = foreign(stem, argument), ""
    else:
        raise unknown(name)
    parameters = inspect.signature(loader).parameters
    wanted = first_argument(loader)
    choices = getattr(module, "NAMES", (argument,))
    if (wanted is None) == bool(argument) or argument not in choices:
        raise unknown(name)
    strange = options.keys() - parameters.keys()
    if strange:
        known = [key for key in parameters if key not in (wanted, "data_dir")]
        raise TypeError(
            f"task {name!r} has no option {', '.join(sorted(strange))}; it has {', '.join(known) or 'none'}"
        )
    if data_dir is not None and "data_dir" in parameters:
        options["data_dir"] = data_dir
    task = loader(argument, **options) if argument else loader(**options)
    task = task if corrupted is None else with_corrupted(task, corrupted)
    return without_classes(task, holdout_classes) if holdout_classes else task


def names() -> dict[str, str]:
    """All names with the first line of what they are; CAPITALS stand for something to fill in."""
    found = {}
    for info in pkgutil.iter_modules(levelhead.tasks.__path__):
        module = loader_module(info.name)
        if module is None:
            continue
        stem = info.name.replace("_", "-")
        what = (module.__doc__ or "").strip().partition("\n")[0]
        wanted = first_argument(own_function(module))
        if wanted is None:
            found[stem] = what
        else:
            choices = getattr(module, "NAMES", ())
            found |= {f"{stem}/{choice}": what for choice in choices} or {f"{stem}:{wanted.upper()}": what}
    return found


def task_names() -> list[str]:
    """All names, sorted."""
    return sorted(names())


def num_splits(name: str) -> int:
    """How many published splits a named task has (option `split`): 20 for the UCI sets, 1 for most others."""
    stem, *rest = re.split("[/:]", name, maxsplit=1)
    module = loader_module(stem)
    count: int | dict[str, int] = 1 if module is None else getattr(module, "NUM_SPLITS", 1)
    return count if isinstance(count, int) else count.get("".join(rest), 1)


def loader_module(stem: str) -> ModuleType | None:
    """The module of this package whose function of its own name makes a Task, or None."""
    stem = stem.replace("-", "_")
    if stem not in {info.name for info in pkgutil.iter_modules(levelhead.tasks.__path__)}:
        return None
    module = importlib.import_module(f"levelhead.tasks.{stem}")
    function = getattr(module, stem, None)
    return module if function is not None and inspect.signature(function).return_annotation is Task else None


def own_function(module: ModuleType) -> Callable[..., Task]:
    """The function that a module is named for."""
    function: Callable[..., Task] = getattr(module, module.__name__.rpartition(".")[2])
    return function


def first_argument(loader: Callable[..., Task]) -> str | None:
    """The name of the argument that stands behind the slash or colon: the first, if it has no default."""
    first = next(iter(inspect.signature(loader).parameters.values()), None)
    return first.name if first is not None and first.default is inspect.Parameter.empty else None


def foreign(module: str, function: str) -> Callable[..., Task]:
    """Anybody's function that makes a Task. Raises ValueError where there is none of this name."""
    try:
        loader: Callable[..., Task] = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"task {module}:{function}: {error}; wants module:function of a function that makes a Task"
        ) from error
    return loader


def unknown(name: str) -> ValueError:
    """The error of a name that is none, with the nearest ones that are."""
    known = task_names()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return ValueError(f"no task is called {name!r}; {advice} (also: module:function of your own that makes a Task)")
