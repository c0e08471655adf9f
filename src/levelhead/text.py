"""One line of text for a recipe: parts joined by `+` in the order they act.

    resnet20 + spatial_smoothing + vat(eps=2.0) + sgd(epochs=30) + laplace + deep_ensemble(size=4) + temperature

Each name is a part's file, resolved to its family. A combinator, or a sampler around a sampler, wraps what stands left
of it. `plain` stands for nothing. A named recipe (`sngp`, ...) may stand first.
"""

import ast
import dataclasses
import inspect
from typing import Any

from levelhead.catalogue import family_of, find, name_of, names, recipes, unknown
from levelhead.distilled import Distilled
from levelhead.hyper_deep import HyperDeepEnsemble
from levelhead.recipe import DeepEnsemble, Fit, Recipe
from levelhead.types import LevelheadError
from levelhead.values import coerce, field_types, fits, snake

COMBINATORS: dict[str, type] = {snake(cls.__name__): cls for cls in (DeepEnsemble, HyperDeepEnsemble, Distilled)}
FAMILIES = ("backbones", "surgeries", "objectives", "samplers", "posthoc")
HELD = ("evaluations", "shifts", "attacks", "detectors", "spaces", "subnetworks", "artificial")  # as arguments only
FIELD = {"surgeries": "surgery", "objectives": "regularisers", "posthoc": "posthoc"}


class BadRecipe(LevelheadError, ValueError):
    """A line of text that is no recipe; the text says what is wrong and what is near."""


def parse(text: str, *, backbone: Any = None) -> Fit:
    """The recipe that a line of text means, on `backbone` unless the line names one.

    Raises BadRecipe for unknown names, wrong arguments, and parts that stand where they cannot.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise BadRecipe(
            f"{text!r} is no recipe: {error.msg}. Write parts joined by +, as in 'vat + temperature'"
        ) from None
    return _Reader(text, backbone).read(_terms(tree))


def parse_part(text: str, families: tuple[str, ...] = FAMILIES) -> Any:
    """One part from text such as `resnet20` or `mc_dropout(p=0.1)`."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise BadRecipe(f"{text!r} is no part: {error.msg}") from None
    return _part(tree, text, families)


def to_text(recipe: Fit, *, with_backbone: bool = True) -> str:
    """The line of text of a recipe made of this library's parts; `parse` reads it back to an equal value."""
    if isinstance(recipe, Recipe):
        pieces = [part_text(recipe.backbone)] if with_backbone else []
        pieces += [part_text(part) for part in (*recipe.surgery, *recipe.regularisers)]
        default = Recipe(backbone=recipe.backbone).sampler
        pieces += [] if recipe.sampler == default else [part_text(recipe.sampler)]
        pieces += [part_text(part) for part in recipe.posthoc]
        return " + ".join(pieces) or "plain"
    for name, cls in COMBINATORS.items():
        if isinstance(recipe, cls):
            inner = to_text(recipe.member, with_backbone=with_backbone)  # type: ignore[attr-defined]
            own = _call(name, recipe, leave_out=("member", "posthoc"))
            return " + ".join([inner, own, *(part_text(part) for part in recipe.posthoc)])  # type: ignore[attr-defined]
    raise TypeError(f"{type(recipe).__name__} has no line of text; write its JSON")


def part_text(part: Any) -> str:
    """The text of one part: its name, with the fields that differ from their defaults."""
    if inspect.isfunction(part) or not family_of(type(part)):
        raise TypeError(f"{part!r} is no part of this library, so it has no name in text; write the recipe's JSON")
    return _call(name_of(type(part)), part)


def _call(name: str, value: Any, leave_out: tuple[str, ...] = ()) -> str:
    written = []
    for spec in dataclasses.fields(value):
        if spec.name in leave_out or not spec.init:
            continue
        item = getattr(value, spec.name)
        default = spec.default if spec.default is not dataclasses.MISSING else None
        if spec.default_factory is not dataclasses.MISSING:
            default = spec.default_factory()
        if item != default:
            written.append(f"{spec.name}={_value_text(item)}")
    return f"{name}({', '.join(written)})" if written else name


def _value_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + "".join(f"{_value_text(item)}, " for item in value) + ")"
    return part_text(value) if dataclasses.is_dataclass(value) else repr(value)


def _terms(tree: ast.expr) -> list[ast.expr]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        return [*_terms(tree.left), *_terms(tree.right)]
    return [tree]


class _Reader:
    """Reads terms from left to right into a recipe."""

    def __init__(self, text: str, backbone: Any) -> None:
        self.text = text
        self.backbone = backbone
        self.fit: Any = None
        self.open: dict[str, Any] = {"surgery": (), "regularisers": (), "posthoc": (), "sampler": None}

    def read(self, terms: list[ast.expr]) -> Fit:
        for place, term in enumerate(terms):
            self.term(term, first=place == 0 or (place == 1 and self.fit is None and self._only_backbone()))
        return self.finished()

    def _only_backbone(self) -> bool:
        return self.open == {"surgery": (), "regularisers": (), "posthoc": (), "sampler": None}

    def term(self, term: ast.expr, *, first: bool) -> None:
        name, args, kwargs = _spelled(term, self.text)
        if name == "plain":
            return
        if name in COMBINATORS:
            self.combine(name, args, kwargs)
        elif name in recipes() and name not in _all_names():
            if not first:
                raise BadRecipe(f"{self.text!r}: the named recipe {name!r} must stand first; other parts follow it")
            self.name_recipe(name, args, kwargs)
        else:
            self.add(_part(term, self.text, FAMILIES))

    def name_recipe(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        try:
            fit = recipes()[name](self.need_backbone(), *args, **kwargs)
        except TypeError as error:
            raise BadRecipe(f"{self.text!r}: {name}: {error}") from None
        if isinstance(fit, Recipe):
            self.open = {
                "surgery": fit.surgery,
                "regularisers": fit.regularisers,
                "posthoc": fit.posthoc,
                "sampler": fit.sampler,
            }
            self.backbone = fit.backbone
        else:
            self.fit = fit

    def add(self, part: Any) -> None:
        family = family_of(type(part))
        if self.fit is not None:
            if family != "posthoc":
                raise BadRecipe(
                    f"{self.text!r}: {name_of(type(part))!r} stands right of a combinator, where only post-hoc steps "
                    "can: put it to the left, into the member"
                )
            self.fit = dataclasses.replace(self.fit, posthoc=(*self.fit.posthoc, part))
        elif family == "backbones":
            self.backbone = part
        elif family == "samplers":
            around = {f.name for f in dataclasses.fields(part)} >= {"inner"}
            before = self.open["sampler"]
            self.open["sampler"] = dataclasses.replace(part, inner=before) if around and before is not None else part
        else:
            self.open[FIELD[family]] += (part,)

    def combine(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        member = self.finished()
        try:
            self.fit = _checked(COMBINATORS[name], self.text, args, {"member": member, **kwargs})
        except TypeError as error:
            raise BadRecipe(f"{self.text!r}: {name}: {error}") from None

    def need_backbone(self) -> Any:
        if self.backbone is None:
            raise BadRecipe(
                f"{self.text!r} names no backbone. Start with one ({', '.join(names('backbones'))}), or pass --backbone"
            )
        return self.backbone

    def finished(self) -> Any:
        if self.fit is not None:
            return self.fit
        fields = {name: value for name, value in self.open.items() if value is not None}
        return Recipe(backbone=self.need_backbone(), **fields)


def _all_names() -> set[str]:
    return {name for family in FAMILIES for name in names(family)}


def _part(term: ast.expr, text: str, families: tuple[str, ...]) -> Any:
    name, args, kwargs = _spelled(term, text, _words(term, families))
    if "backbones" in families and name not in _all_names():
        for known in names("backbones"):
            short = getattr(find(known, ("backbones",)), "shorthand", None)
            try:
                part = short(name) if short is not None else None
            except ValueError as error:
                raise BadRecipe(f"{text!r}: {error}") from None
            if part is not None:
                return dataclasses.replace(part, **_checked_fields(type(part), text, kwargs)) if kwargs else part
    try:
        cls = find(name, families)
    except ValueError:
        known_names = [n for family in families for n in names(family)]
        known_names += [*recipes(), *COMBINATORS] if families == FAMILIES else []
        raise BadRecipe(
            f"{text!r}: {unknown(name, known_names, what='the catalogue')} `levelhead list` shows all"
        ) from None
    return _checked(cls, text, args, kwargs)


def _words(term: ast.expr, families: tuple[str, ...]) -> tuple[str, ...]:
    """The plain words that a part's fields may hold without quotes: its ClassVar `words`."""
    named = term.func if isinstance(term, ast.Call) else term
    if not isinstance(named, ast.Name) or named.id not in {name for family in families for name in names(family)}:
        return ()
    words: tuple[str, ...] = getattr(find(named.id, families), "words", ())
    return words


def _checked(cls: type, text: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Build a spec with values of the right types; errors name the fields."""
    order = [f.name for f in dataclasses.fields(cls) if f.init and not f.kw_only]
    if len(args) > len(order):
        raise BadRecipe(f"{text!r}: {cls.__name__} takes at most {len(order)} values without a name, got {len(args)}")
    given = {**dict(zip(order, args, strict=False)), **kwargs}
    try:
        return cls(**_checked_fields(cls, text, given))
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, BadRecipe) else BadRecipe(f"{text!r}: {error}") from None


def _checked_fields(cls: type, text: str, given: dict[str, Any]) -> dict[str, Any]:
    types = field_types(cls)
    checked = {}
    for name, value in given.items():
        if name not in types:
            raise BadRecipe(f"{text!r}: {cls.__name__}: {unknown(name, list(types), what='its fields')}")
        value = coerce(value, types[name])
        if dataclasses.is_dataclass(value) and not fits(value, types[name]) and fits((value,), types[name]):
            value = (value,)  # one part where several may stand
        if not fits(value, types[name]):
            wanted = types[name].__name__ if isinstance(types[name], type) else types[name]
            raise BadRecipe(f"{text!r}: {cls.__name__}.{name} wants {wanted}, got {value!r}")
        checked[name] = value
    return checked


def _spelled(term: ast.expr, text: str, words: tuple[str, ...] = ()) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, values and named values of one term."""
    if isinstance(term, ast.Name):
        return term.id, [], {}
    if isinstance(term, ast.Call) and isinstance(term.func, ast.Name):
        kwargs = {}
        for keyword in term.keywords:
            if keyword.arg is None:
                raise BadRecipe(f"{text!r}: ** is not understood in a recipe")
            kwargs[keyword.arg] = _value(keyword.value, text, words)
        return term.func.id, [_value(arg, text, words) for arg in term.args], kwargs
    raise BadRecipe(f"{text!r}: {ast.unparse(term)!r} is no part. Write name or name(field=value), joined by +")


def _value(node: ast.expr, text: str, words: tuple[str, ...] = ()) -> Any:
    if isinstance(node, ast.Name) and node.id in words:
        return node.id
    if isinstance(node, ast.Name | ast.Call):
        return _part(node, text, (*FAMILIES, *HELD))
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(item, text, words) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise BadRecipe(f"{text!r}: {ast.unparse(node)!r} is no plain value") from None
