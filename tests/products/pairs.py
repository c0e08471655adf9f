"""Recipes from choices of parts, and their only two outcomes: it works, or it says what to write instead."""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

import torch
from contracts.styles import advises
from contracts.styles import specs as full_specs
from products.cover import Row, cover

from levelhead.backbones.factory import Factory
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.catalogue import name_of
from levelhead.recipe import DeepEnsemble, Fit, Recipe, rehearse
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose, NoLayerReplaced

TASK = stripes(n=16, size=12)  # two steps of eight rows, once a recipe is shortened
X = TASK.test.x / 255
STYLES = {
    "resnet": ResNet(depth=8, width=4),
    "resnet with group norm": ResNet(depth=8, width=4, norm="group", preact=True),
    "lenet": LeNet(),
    "mlp": MLP(hidden=(8, 8)),
    "foreign": Factory("contracts.styles:Foreign"),
    "tokens": Factory("contracts.styles:Tokens"),
}
ALONE, INSIDE, OUTSIDE = "alone", "ensemble", "ensemble, steps outside"
FAMILIES = ("surgeries", "objectives", "samplers", "posthoc")
NEEDY = ("posthoc", "second_posthoc", "regulariser", "second_regulariser")  # slots whose parts may need a surgery


@dataclass(frozen=True)
class Choices:
    """One choice for every slot; what is not chosen is the base, which always works."""

    backbone: str = "resnet"
    surgery: Any = None
    second_surgery: Any = None
    regulariser: Any = None
    second_regulariser: Any = None
    sampler: Any = field(default_factory=SGD)
    posthoc: Any = None
    second_posthoc: Any = None
    combinator: str = ALONE

    def recipe(self) -> Fit:
        """The recipe that these choices mean, at its smallest."""
        steps = chosen(self.posthoc, self.second_posthoc)
        recipe = Recipe(
            backbone=STYLES[self.backbone],
            surgery=chosen(self.surgery, self.second_surgery),
            regularisers=chosen(self.regulariser, self.second_regulariser),
            sampler=self.sampler,
            posthoc=() if self.combinator == OUTSIDE else steps,
        )
        if self.combinator == ALONE:
            return recipe.shortened()
        return DeepEnsemble(member=recipe, size=2, posthoc=steps if self.combinator == OUTSIDE else ()).shortened()

    def __str__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        base = {f.name: getattr(BASE, f.name) for f in dataclasses.fields(self)}
        return " + ".join(label(value) for name, value in given.items() if value != base[name]) or "base"


BASE = Choices()
KNOWN: dict[Choices, str] = {}  # the smallest refusals found so far, with their advice


def label(part: Any) -> str:
    """What a part is called in text."""
    return part if isinstance(part, str) else name_of(type(part))


def wrapped(wrapper: Any, inner: Any) -> Any:
    """A sampler around another; None where it holds none."""
    if "inner" not in {f.name for f in dataclasses.fields(wrapper)}:
        return None
    return dataclasses.replace(wrapper, inner=inner)


def chosen(*given: Any) -> tuple[Any, ...]:
    """Those that are parts."""
    return tuple(part for part in given if part is not None)


@cache
def outcome(choices: Choices) -> str:
    """Fit two steps and predict: "" where that works, the text of the refusal where not. All else is an error."""
    try:
        predictor = choices.recipe().fit(TASK, 0, rehearsed=True)
    except (CannotCompose, NoLayerReplaced) as refusal:
        text = str(refusal)
    else:
        with torch.no_grad():
            belief = predictor(X)
        assert belief.probs.shape == (len(X), 3), belief.probs.shape
        for name in ("log_probs", "log_weights"):
            assert getattr(belief, name).isfinite().all(), name
        for name in ("total", "aleatoric", "epistemic"):
            assert getattr(belief, name)().isfinite().all(), name
        assert (belief.probs.sum(-1) - 1).abs().max() < 1e-4
        return ""
    assert advises(text), f"refused without advice: {text}"
    return text


@cache
def says_so_before_training(choices: Choices) -> bool:
    """Whether the dry run of a refused recipe refuses it too."""
    try:
        rehearse(choices.recipe(), TASK)
    except (CannotCompose, NoLayerReplaced):
        return True
    return False


def without(choices: Choices, name: str) -> Choices:
    """The choices with one slot back at the base, and with it the parts that need what stood there."""
    left = dataclasses.replace(choices, **{name: getattr(BASE, name)})
    for slot in NEEDY:
        needed = None if getattr(left, slot) is None else companion(getattr(left, slot))
        if needed is not None and needed not in (left.surgery, left.second_surgery):
            left = dataclasses.replace(left, **{slot: None})
    return left


def departures(choices: Choices) -> list[str]:
    """The slots that are not at the base; what costs most to run comes first."""
    return [f.name for f in reversed(dataclasses.fields(choices)) if getattr(choices, f.name) != getattr(BASE, f.name)]


def settle(choices: Choices) -> dict[Choices, str]:
    """Run a row; where it refuses, find the smallest part of it that does, and go on without each choice of that part.

    So every two choices of the row that go together do run together. Returns the smallest refusals with their advice.
    """
    if not outcome(choices):
        return {}
    smallest = next((known for known in KNOWN if contains(choices, known)), None) or reduced(choices)
    KNOWN[smallest] = outcome(smallest)
    assert says_so_before_training(smallest), f"{smallest}: its dry run did not refuse it: {KNOWN[smallest]}"
    found = {smallest: KNOWN[smallest]}
    for name in departures(smallest):
        found |= settle(without(choices, name))
    return found


def specs(family: str) -> list[Any]:
    """The parts of a family with small sizes: a few draws, members and features show whether they go together."""
    return full_specs(family, at_most=4)


def reduced(choices: Choices) -> Choices:
    """A part of refused choices that is refused, and works without any one of its own."""
    for name in departures(choices):
        less = without(choices, name)
        if less != choices and outcome(less):
            choices = less
    return choices


def contains(choices: Choices, part: Choices) -> bool:
    """Whether these choices hold all departures of `part`, and no surgery that a part of it lacked."""
    given = [getattr(part, slot) for slot in NEEDY if getattr(part, slot) is not None]
    lacking = {companion(needy) for needy in given} - {None, part.surgery, part.second_surgery}
    held = all(getattr(choices, name) == getattr(part, name) for name in departures(part))
    return held and not lacking & {choices.surgery, choices.second_surgery}


@cache
def companion(part: Any) -> Any:
    """The surgery without which a post-hoc step or regulariser refuses every network; None where it needs none."""
    slot = "posthoc" if part in specs("posthoc") else "regulariser"
    for surgery in (None, *specs("surgeries")):
        try:
            refused = outcome(dataclasses.replace(BASE, surgery=surgery, **{slot: part}))
        except Exception:  # the test of that pair will show it
            continue
        if not refused:
            return surgery
    return None


def slots() -> dict[str, tuple[Any, ...]]:
    """The choices of every slot, by the names of `Choices`."""
    surgeries, objectives, samplers, steps = (specs(family) for family in FAMILIES)
    return {
        "backbone": tuple(STYLES),
        "surgery": (None, *surgeries),
        "second_surgery": (None, *surgeries),
        "regulariser": (None, *objectives),
        "second_regulariser": (None, *objectives),
        "sampler": tuple(samplers),
        "posthoc": (None, *steps),
        "second_posthoc": (None, *steps),
        "combinator": (ALONE, INSIDE, OUTSIDE),
    }


def rows(turns: int | None = None) -> list[Choices]:
    """The recipes of the cover, in all of which every two parts meet.

    turns  only the first of them: so many times the largest family's size, so that there is about that number for each
           of its parts, and more for each part of a smaller one. Their number then grows as the parts do.
    """
    offered = slots()
    names = list(offered)

    def repair(row: Row, kept: frozenset[int]) -> Row:
        """Give a part the surgery that it needs, or leave it out where both surgeries are given."""
        values = dict(enumerate(row))
        for name in NEEDY:
            part = offered[name][values[names.index(name)]]
            needed = None if part is None else companion(part)
            places = [names.index("surgery"), names.index("second_surgery")]
            if needed is None or any(offered[names[slot]][values[slot]] == needed for slot in places):
                continue
            free = next((slot for slot in reversed(places) if slot not in kept), None)
            if free is not None:
                values[free] = offered[names[free]].index(needed)
            elif names.index(name) not in kept:
                values[names.index(name)] = offered[name].index(None)
        return tuple(values.values())

    sizes = [len(choices) for choices in offered.values()]
    found = islice(cover(sizes, repair=repair), None if turns is None else turns * max(sizes))
    return [Choices(**{name: offered[name][place] for name, place in zip(names, row, strict=True)}) for row in found]
