"""What the contract suites run on: a tiny task, and one small network of each style of architecture.

A part must work on the styles that offer what it needs, and say so on the others. Nothing here knows a part by name.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from levelhead.backbones.factory import Factory
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.catalogue import name_of, parts
from levelhead.likelihood import Categorical, Gaussian
from levelhead.network import Network, build
from levelhead.passes import seeded
from levelhead.predictor import Predictor
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Split, Task
from levelhead.types import CannotCompose, NoLayerReplaced

T = TypeVar("T")
TASK = stripes(n=24, size=12)
X = TASK.test.x / 255
Y = TASK.test.y
WORDS = ("write", "use", "put", "give", "lists", "leave", "wants", "choose", "lower", "pass")


class Residual(nn.Module):
    """x + f(x), the sum outside of any module."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


class Foreign(nn.Module):
    """Somebody else's convolutional network: nested blocks, one block used twice, functional activation and dropout."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.twice = Residual(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3, padding=1))
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Sequential(nn.Sequential(nn.Conv2d(6, 8, 3, padding=1)), nn.ReLU())
        self.hidden = nn.Linear(8, 8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.stem(x)).relu()
        z = self.last(self.pool(self.twice(self.twice(z))))
        z = F.dropout(z.mean((2, 3)), 0.1, self.training)
        return self.fc(F.relu(self.hidden(z)))


class Attention(nn.Module):
    """Self-attention over tokens with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.out(F.scaled_dot_product_attention(*self.qkv(z).chunk(3, -1)))


class Tokens(nn.Module):
    """A small transformer: (batch, token, feature) between its patches and its mean."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, 8, 4, stride=4)
        self.attention = nn.Sequential(Attention(8), nn.LayerNorm(8))
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.LayerNorm(8))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).mT
        return self.fc(self.mlp(self.attention(z)).mean(1))


STYLES: dict[str, Any] = {
    "mlp": MLP(hidden=(8,)),
    "mlp-norm": MLP(hidden=(8, 8), activation="tanh", batch_norm=True),
    "lenet": LeNet(),
    "resnet": ResNet(depth=8, width=4),
    "group": ResNet(depth=8, width=4, norm="group", preact=True),
    "foreign": Factory("contracts.styles:Foreign"),
    "tokens": Factory("contracts.styles:Tokens"),
}


def specs(family: str, *, at_most: int = 64) -> list[Any]:
    """Every part of a family with its defaults; larger sizes (a rank of 1024) are cut, for they show no more.

    Surgeries and objectives that say `wants_targets: ClassVar = True` are not here: see `for_targets`.
    """
    return _small([spec for spec in parts(family) if family == "posthoc" or not wants_targets(spec)], at_most)


def for_targets(family: str, *, at_most: int = 64) -> list[Any]:
    """The parts of a family that work on real targets only."""
    return _small([spec for spec in parts(family) if wants_targets(spec)], at_most)


def wants_targets(part: Any) -> bool:
    """Whether a part says that it works on real targets only."""
    return bool(getattr(part, "wants_targets", False))


def _small(kinds: list[type], at_most: int) -> list[Any]:
    return [
        spec(**{f.name: cut for f in dataclasses.fields(spec) if (cut := _cut(f.default, at_most))}) for spec in kinds
    ]


def _cut(default: Any, at_most: int) -> Any:
    """A smaller size, or smaller sizes, in place of these; None where they are small, or none."""
    if type(default) is int and default > at_most:
        return at_most
    if type(default) is tuple and default and all(type(size) is int for size in default) and max(default) > at_most:
        return tuple(min(size, at_most) for size in default)
    return None


def name(part: Any) -> str:
    """A test's id: the part's name in text, or a plain word's own."""
    return part if isinstance(part, str) else name_of(type(part))


def advises(text: str) -> bool:
    """Whether a refusal says what to do next."""
    return any(word in text.lower() for word in WORDS)


def made(style: str, *surgeries: Any, seed: int = 0, task: Task = TASK) -> Network:
    """A network of some style after surgeries; always the same for the same seed."""
    with seeded(seed):
        return build(STYLES[style], surgeries, task.signature)


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """What an action gives, or the text of its refusal, which must say what to do next. Other errors are raised."""
    try:
        return action(), ""
    except (NoLayerReplaced, CannotCompose) as error:
        text = str(error)
    assert advises(text), text
    return None, text


@cache
def refusal(surgery: Any, style: str) -> str:
    """The text with which a surgery refuses a style; empty where it works."""
    return attempt(lambda: made(style, surgery))[1]


def applicable(surgery: Any) -> Iterator[str]:
    """The styles on which a surgery works."""
    return (style for style in STYLES if not refusal(surgery, style))


def segmentation() -> Task:
    """Tiny images with a label for every pixel, some of them void."""
    task = stripes(n=24, size=8)

    def labelled(split: Split) -> Split:
        y = (split.x[:, 0] > 127).long()
        y[:, 0] = 255
        return Split(split.name, split.x, y)

    splits = {n: labelled(getattr(task, n)) for n in ("train", "val", "calibration", "test")}
    return Task(name="pixels", likelihood=Categorical(2, void=255), **splits)


def regression() -> Task:
    """A small table with a real target."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: str, count: int) -> Split:
        x = torch.randn(count, 4, generator=generator)
        return Split(n, x, 3 + 2 * x[:, :1] + 0.1 * torch.randn(count, 1, generator=generator))

    splits = {n: draw(n, 24) for n in ("train", "val", "calibration", "test")}
    return Task(name="line", likelihood=Gaussian(1, shift=(3.0,), scale=(2.0,)), **splits)


def fit(style: str, *surgeries: Any, task: Task = TASK, epochs: int = 1, seed: int = 0) -> Predictor:
    """A predictor after a short plain fit."""
    sampler = SGD(epochs=epochs, batch_size=8, lr=0.02)
    recipe = Recipe(backbone=STYLES[style], surgery=surgeries, sampler=sampler)
    predictor = recipe.fit(task, seed, rehearsed=True)
    predictor.zero_grad(set_to_none=True)
    return predictor


def label_steps(*, at_most: int = 64) -> list[Any]:
    """The post-hoc steps that work on labels; `wants_targets: ClassVar = True` says that one works on targets only."""
    return [step for step in specs("posthoc", at_most=at_most) if not wants_targets(step)]


def target_steps() -> list[Any]:
    """The post-hoc steps that work on real targets only."""
    return for_targets("posthoc")


@cache
def host(step: Any) -> Predictor:
    """A fitted predictor that a post-hoc step accepts: without surgery, or after the one surgery that it needs."""
    texts = []
    for surgery in ((), *((spec,) for spec in specs("surgeries"))):
        style = "resnet" if not surgery or not refusal(surgery[0], "resnet") else next(applicable(surgery[0]))
        predictor = fit(style, *surgery, epochs=2)
        fitted, text = attempt(lambda predictor=predictor: step(copy.deepcopy(predictor), TASK.sealed()))
        if fitted is not None:
            return predictor
        texts.append(text)
    raise AssertionError(f"{step} refuses everything: {texts}")
