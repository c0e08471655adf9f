"""From a study to its cells, and the check of all of them before anything trains."""

import dataclasses
import inspect
import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from levelhead import recipe as recipes
from levelhead.backbones.factory import Factory
from levelhead.recipe import Fit
from levelhead.studies.protocol import trained_as_usual
from levelhead.studies.store import DONE, read_json, read_status
from levelhead.studies.study import DEFAULT_SEEDS, BadStudy, RecipeLike, Study
from levelhead.tasks.load import load_task, num_splits
from levelhead.tasks.task import Task
from levelhead.text import parse, parse_part, part_text, to_text
from levelhead.types import LevelheadError
from levelhead.values import NoSuchPath, digest, from_json, get_path, import_path, resolve, set_path, snake, to_json

TASK = "task."  # what paths of changes to the task's options begin with
PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # module:function
MAX_SLUG = 60


@dataclass(frozen=True)
class Source:
    """Where a cell's task comes from: a name with options, or a task at hand."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    given: Task | None = None

    def load(self) -> Task:
        """The task; loaded once a process."""
        return _loaded(self.name, self.options) if self.given is None else self.given


@dataclass(frozen=True)
class Cell:
    """One fit of a study: a recipe on a seed, and the folder that holds what came of it.

    name     the line that the user wrote, or the recipe's own text.
    identity digest of the recipe and of the task's data: names the folder.
    content  digest of this very split of the data.
    """

    name: str
    fit: Fit
    seed: int
    source: Source
    identity: str
    content: str
    folder: Path

    @property
    def backbone(self) -> str:
        """The backbone's text."""
        return backbone_text(self.fit)

    @property
    def description(self) -> dict[str, Any]:
        """What recipe.json holds."""
        return {
            "text": self.name,
            "canonical": text_of(self.fit),
            "json": to_json(self.fit),
            "task": self.source.name,
            "options": dict(self.source.options),
            "backbone": self.backbone,
            "seed": self.seed,
            "digest": self.identity,
            "content": self.content,
            "classes": list(self.source.load().classes),
        }

    def missing(self, suites: Iterable[str]) -> tuple[str, ...] | None:
        """The suites that a finished cell lacks; None where it is not finished, or was made from other data."""
        status, known = read_status(self.folder), read_json(self.folder / "recipe.json")
        if status is None or status.state != DONE or known is None or known["content"] != self.content:
            return None
        return tuple(suite for suite in suites if suite not in status.suites)


@lru_cache(maxsize=32)
def _loaded(name: str, options: tuple[tuple[str, Any], ...]) -> Task:
    return load_task(name, **dict(options))


def plan(study: Study, root: Path) -> list[Cell]:
    """The cells of a study, equal ones once, in the order of the study.

    Raises BadStudy with everything that is wrong with the task, recipes, backbones and changes.
    """
    try:
        sources = {seed: source(study, seed) for seed in study_seeds(study)}
        tasks = {seed: source.load() for seed, source in sources.items()}
    except (LevelheadError, ValueError, TypeError, OSError) as error:
        raise BadStudy(f"task {study.task_name!r}: {error}") from error
    task = next(iter(tasks.values()))
    errors: list[str] = []
    fits: list[tuple[str, Fit]] = []
    for backbone in study.backbones or (None,):
        for given in study.recipes:
            try:
                fits.append(read_recipe(given, backbone, task, trust=study.trust))
            except Exception as error:  # a user's function may raise anything
                errors.append(_said(label(given), error))
    changes = [(path, new) for path, new in study.changes if not path.startswith(TASK)]
    changed = _changed(fits, changes, errors)
    if errors:
        raise BadStudy(_together(errors))
    cells: dict[Path, Cell] = {}
    for name, fit in changed:
        for seed, data in tasks.items():
            identity = digest(fit, whole(data))
            folder = root / slug(study.task_name) / f"{fit_slug(fit)}-{identity}" / str(seed)
            cells.setdefault(folder, Cell(name, fit, seed, sources[seed], identity, data.digest, folder))
    return list(cells.values())


def check(cells: Iterable[Cell], done: Callable[[str], None] | None = None) -> dict[str, float]:
    """Rehearse every recipe among the cells once; seconds of each by its identity.

    Raises BadStudy with all errors together.
    """
    errors: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for cell in cells:
        if cell.identity in seconds:
            continue
        started = time.monotonic()
        try:
            recipes.rehearse(cell.fit, cell.source.load())
        except Exception as error:  # the point is to tell them all, whatever they are
            errors[cell.identity] = _said(cell.name, error)
        seconds[cell.identity] = time.monotonic() - started
        if done is not None:
            done(cell.name)
    if errors:
        raise BadStudy(_together(list(errors.values())))
    return seconds


def study_seeds(study: Study) -> tuple[int, ...]:
    """The study's seeds; where it names none, all published splits of its task, or 0, 1, 2."""
    if study.seeds is not None:
        return study.seeds
    return tuple(range(published_splits(study) or DEFAULT_SEEDS))


def source(study: Study, seed: int) -> Source:
    """Where the task of one seed comes from."""
    if isinstance(study.task, Task):
        if task_options(study) != dict(study.options):
            raise ValueError(
                "changes of task.* want a task by name; this study was given a task that is loaded already"
            )
        return Source(study.task.name, tuple(study.task.args.items()), study.task)
    split = {"split": seed} if published_splits(study) else {}
    return Source(study.task, tuple({**task_options(study), **split}.items()))


def task_options(study: Study) -> dict[str, Any]:
    """The options of the study's task, with changes such as ("task.corrupted", "CIFAR-10-C")."""
    changed = {path.removeprefix(TASK): new for path, new in study.changes if path.startswith(TASK)}
    return {**dict(study.options), **changed}


def published_splits(study: Study) -> int:
    """How many published splits the seeds of a study stand for; 0 where they are seeds alone."""
    if isinstance(study.task, Task) or "split" in task_options(study):
        return 0
    count = num_splits(study.task)
    return count if count > 1 else 0


def whole(task: Task) -> str:
    """A digest of the data of a task that all its published splits share: of the set of its rows."""
    if "split" not in task.args:
        return task.digest
    rows = {row for split in (task.train, task.val, task.calibration, task.test) for row in split.row_hashes}
    args = {key: value for key, value in task.args.items() if key != "split"}
    text = json.dumps([task.name, args], sort_keys=True, default=str).encode()
    return blake2b(text + b"".join(sorted(rows)), digest_size=6).hexdigest()


def read_recipe(given: RecipeLike, backbone: Any, task: Task, *, trust: tuple[str, ...] = ()) -> tuple[str, Fit]:
    """The name and value of a recipe in any of the forms a study takes, on `backbone` where it names none.

    A file may import only what `trust` names; what the line itself names may be imported.
    """
    name = label(given)
    if isinstance(given, str) and given.endswith(".json"):
        saved = json.loads(Path(given).read_text(encoding="utf-8"))
        return saved["text"], from_json(saved["json"], trust=trust)
    if isinstance(given, str) and PATH.fullmatch(given.strip()):
        given = resolve(given.strip(), trust=("*",))
    built = read_backbone(backbone)
    if isinstance(given, str):
        return name, trained_as_usual(parse(given, backbone=built), task, given)
    if inspect.isfunction(given):
        given = given(built) if inspect.signature(given).parameters else given()
    elif isinstance(given, type):
        given = given()
    if not dataclasses.is_dataclass(given) or not hasattr(given, "fit"):
        raise TypeError(
            f"wants a recipe: a line of text, a value with `fit`, or a function that returns one; got {given!r}"
        )
    to_json(given)  # what has no plain form cannot be kept
    return name, given


def read_backbone(given: Any) -> Any:
    """A backbone from its text, from `module:function`, or as it is."""
    if not isinstance(given, str):
        return given
    if PATH.fullmatch(given):
        return Factory(target=given)
    return parse_part(given, ("backbones",))


def label(given: RecipeLike) -> str:
    """How tables call a recipe."""
    if isinstance(given, str):
        return " ".join(given.split())
    if inspect.isfunction(given):
        return given.__name__
    return text_of(given, with_backbone=False) or snake(type(given).__name__)


def text_of(fit: Any, *, with_backbone: bool = True) -> str | None:
    """The line of text of a recipe, or None where it holds something that has none."""
    try:
        return to_text(fit, with_backbone=with_backbone)
    except TypeError:
        return None


def backbone_text(fit: Any) -> str:
    """The text of the backbone inside a recipe or combinator, or its import path."""
    while hasattr(fit, "member"):
        fit = fit.member
    backbone = getattr(fit, "backbone", None)
    try:
        return part_text(backbone)
    except TypeError:
        return import_path(backbone if inspect.isfunction(backbone) else type(backbone))


def epochs_of(fit: Any) -> int:
    """Epochs that a fit logs, over its members: a guess for what does not say."""
    size = getattr(fit, "size", 1)
    inner = getattr(fit, "member", None)
    if inner is not None:
        return size * epochs_of(inner)
    return getattr(getattr(fit, "sampler", None), "epochs", 1)


def change(value: Any, path: str, new: Any) -> Any:
    """`set_path`, but a step that a combinator or wrapper does not have is looked for in what it holds."""
    step, _, rest = path.partition(".")
    try:
        child = get_path(value, step)
        return set_path(value, step, change(child, rest, new)) if rest else set_path(value, path, new)
    except NoSuchPath:
        for held in ("member", "inner"):
            if dataclasses.is_dataclass(value) and hasattr(value, held):
                return dataclasses.replace(value, **{held: change(getattr(value, held), path, new)})  # type: ignore[type-var]
        raise


def slug(text: str) -> str:
    """Text as part of a path: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "unnamed"


def fit_slug(fit: Any) -> str:
    """What a recipe's folder begins with: a function of its value, whatever line it was written as."""
    text = text_of(fit) or snake(type(fit).__name__)
    names = [re.sub(r"\(.*\)", "", part.strip()) for part in re.split(r"\+(?![^(]*\))", text)]
    return slug("+".join(names))[:MAX_SLUG].rstrip("-+.")


def _changed(
    fits: list[tuple[str, Fit]], changes: Iterable[tuple[str, Any]], errors: list[str]
) -> list[tuple[str, Fit]]:
    """The fits with every change that they have a place for; a change that has no place in any is an error."""
    for path, new in changes:
        misses: list[str] = []
        after: list[tuple[str, Fit]] = []
        for name, fit in fits:
            try:
                after.append((name, change(fit, path, new)))
            except NoSuchPath as error:
                misses.append(str(error))
                after.append((name, fit))
            except (TypeError, ValueError) as error:
                errors.append(_said(name, error))
        if fits and len(misses) == len(fits):
            errors.append(f"--set {path}: no recipe has it. {misses[0]}")
        fits = after if len(after) == len(fits) else fits
    return fits


def _said(name: str, error: Exception) -> str:
    """What an error says about a recipe; what kind it is, where it is none that speaks to users."""
    expected = isinstance(error, LevelheadError | ValueError | TypeError)
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    return text if name in text.split(":")[0] else f"{name}: {text}"


def _together(errors: list[str]) -> str:
    if len(errors) == 1:
        return errors[0]
    return f"{len(errors)} recipes cannot run:\n" + "\n".join(f"  - {error}" for error in errors)
