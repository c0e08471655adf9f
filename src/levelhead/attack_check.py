"""Whether to believe an attack that fails: checks for gradients that lead nowhere (arXiv 1802.00420, 1902.06705)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.attacks._ball import Ball
from levelhead.attacks._victim import Worst, facing
from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.square import Square
from levelhead.predictor import Point, Predictor

SLACK = 0.02  # differences in accuracy that are noise
QUERIES = 300
SAMPLES = 50
CALLS = 5
NOISE = 1e-4  # relative difference of log probabilities between calls

CHECKS: Mapping[str, str] = {
    "unbounded": "without a limit on the change the attack leaves more than 5 % right: it does not find what is there",
    "single_step": "one step fools more rows than the attack's many",
    "black_box": "random squares, without any gradient, fool more rows than the attack",
    "transfer": "errors made on another predictor fool more rows than the attack",
    "more_steps": "three times the steps fool more rows: the attack has not converged",
    "random_points": "random points of the ball are errors where the attack found none",
    "gradients": "more than 5 % of the rows have a gradient that is zero or no number",
    "randomness": "calls differ: attack the mean of several draws (draws=20)",
    "probabilities": "a network's outputs are probabilities already: attack what comes before its softmax",
    "rises": "the loss does not rise along its gradient: the gradient is not that of the predictor",
    "gradients_inside": "the predictor computes gradients while it predicts: it needs an attack made for it",
    "worst_case": "the attack makes wrong rows right: count a row as right only where it is right before and after",
}
"""What each check found when it is raised, in the order in which they are made."""


class Flag(NamedTuple):
    """One check: whether it is raised, and the number that decided.

    name    of `CHECKS`.
    value   accuracy that the attack missed (unbounded: that it left), or the share of rows concerned.
    """

    name: str
    raised: bool
    value: float

    @property
    def text(self) -> str:
        """What it means when raised."""
        return CHECKS[self.name]


def check_attack(
    predictor: Predictor,
    x: Float[Tensor, "batch *input"],
    y: Int[Tensor, " batch"],
    attack: Any,
    *,
    surrogate: Predictor | None = None,
    seed: int = 0,
) -> tuple[Flag, ...]:
    """The checks that apply to the attack; a raised one says that its accuracy is not to be trusted as it stands.

    Accuracy here is the share of rows that are right before and after. x (batch, *input), y (batch,): a hundred rows
    say enough. The predictor is attacked as it is, with the attack's own norm, eps, bounds, loss and draws; attacks
    without an eps meet only the checks of the predictor. `surrogate`, another predictor trained on the same task
    without a defence, adds `transfer`. Black box means Square, so images.
    """
    look = _Look(predictor, x, y, attack, surrogate, seed)
    return tuple(flag for make in MAKERS if (flag := make(look)) is not None)


@dataclass(frozen=True, eq=False)
class _Look:
    """What the checks look at."""

    predictor: Predictor
    x: Tensor
    y: Tensor
    attack: Any
    surrogate: Predictor | None
    seed: int

    @cached_property
    def settings(self) -> dict[str, Any]:
        return {field.name: getattr(self.attack, field.name) for field in fields(self.attack)}

    @property
    def draws(self) -> int:
        return int(self.settings.get("draws", 1))

    @property
    def loss(self) -> Any:
        return self.settings.get("loss", "ce")

    @cached_property
    def ball(self) -> Ball | None:
        """Where the attack may go; None for those of minimum norm."""
        if "eps" not in self.settings:
            return None
        return Ball(self.attack.eps, self.attack.norm, self.attack.bounds)

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def before(self) -> Bool[Tensor, " batch"]:
        return self.right(self.x)

    @cached_property
    def after(self) -> Bool[Tensor, " batch"]:
        return self.right(self.moved)

    @cached_property
    def moved(self) -> Tensor:
        return self.by(self.attack)

    @property
    def accuracy(self) -> float:
        return self.left(self.after)

    def by(self, attack: Any, predictor: Predictor | None = None) -> Tensor:
        moved: Tensor = attack(predictor or self.predictor, self.x, self.y, self.generator)
        return moved

    def right(self, x: Tensor) -> Bool[Tensor, " batch"]:
        with facing(self.predictor, x, self.y, self.generator, by_gradient=False) as victim:
            return victim.margin(x, victim.rows, draws=self.draws) <= 0

    def left(self, after: Tensor) -> float:
        return _share(self.before & after)

    def better(self, name: str, attack: Any, predictor: Predictor | None = None) -> Flag:
        """Raised where another attack fools more rows; the value is how much more."""
        missed = self.accuracy - self.left(self.right(self.by(attack, predictor)))
        return Flag(name, missed > SLACK, missed)


def _unbounded(look: _Look) -> Flag | None:
    if look.ball is None or look.ball.eps == 0:
        return None
    low, high = look.ball.bounds
    eps = (high - low) * (1.0 if look.ball.norm == "linf" else math.sqrt(look.x[0].numel()))
    size = look.settings.get("step_size")
    stretched = {} if size is None else {"step_size": size * eps / look.ball.eps}
    accuracy = look.left(look.right(look.by(replace(look.attack, eps=eps, **stretched))))
    return Flag("unbounded", accuracy > 0.05, accuracy)


def _single_step(look: _Look) -> Flag | None:
    if look.ball is None:
        return None
    known = {name: look.settings[name] for name in ("eps", "norm", "bounds", "loss", "draws") if name in look.settings}
    single = FGSM(**known)
    return None if single == look.attack else look.better("single_step", single)


def _black_box(look: _Look) -> Flag | None:
    if look.ball is None or look.x.ndim != 4:
        return None
    square = Square(look.ball.eps, QUERIES, norm=look.ball.norm, bounds=look.ball.bounds, draws=look.draws)
    return look.better("black_box", square)


def _transfer(look: _Look) -> Flag | None:
    if look.ball is None or look.surrogate is None:
        return None
    return look.better("transfer", look.attack, look.surrogate)


def _more_steps(look: _Look) -> Flag | None:
    if look.ball is None or "steps" not in look.settings:
        return None
    return look.better("more_steps", replace(look.attack, steps=3 * look.attack.steps))


def _random_points(look: _Look) -> Flag | None:
    """Rows that the attack left right and a random point, a corner every other time, does not."""
    if look.ball is None:
        return None
    with facing(look.predictor, look.x, look.y, look.generator, by_gradient=False) as victim:
        rows = victim.rows[look.before & look.after]
        worst, start = Worst(victim.x), len(rows)
        for k in range(SAMPLES if start else 0):
            draw = look.ball.start if k % 2 else look.ball.edge
            moved = draw(victim.x[rows], victim.streams, rows)
            worst.keep(rows, moved, victim.margin(moved, rows, draws=look.draws))
            rows = worst.standing(rows)
            if not len(rows):
                break
    share = (start - len(rows)) / len(look.x)
    return Flag("random_points", share > 0, share)


def _gradients(look: _Look) -> Flag | None:
    if not _differentiable(look.predictor):
        return None
    with facing(look.predictor, look.x, look.y, look.generator) as victim:
        gradient = victim.ascent(victim.x, victim.rows, loss=look.loss, draws=look.draws).gradient.flatten(1)
    useless = (gradient == 0).all(1) | ~gradient.isfinite().all(1)
    return Flag("gradients", _share(useless) > 0.05, _share(useless))


def _randomness(look: _Look) -> Flag | None:
    with facing(look.predictor, look.x, look.y, look.generator, by_gradient=False) as victim, torch.no_grad():
        calls = torch.stack([victim.log_probs(victim.x) for _ in range(CALLS)])
    spread = (calls - calls[0]).norm(dim=-1) / calls[0].norm(dim=-1).clamp_min(1e-12)
    varying = spread.amax(0) > NOISE
    return Flag("randomness", bool(varying.any()) and look.draws == 1, _share(varying))


def _probabilities(look: _Look) -> Flag | None:
    points = [part for part in look.predictor.modules() if isinstance(part, Point)]
    if not points:
        return None
    with facing(look.predictor, look.x, look.y, look.generator, by_gradient=False) as victim, torch.no_grad():
        outputs = [point.outputs(victim.x) for point in points]
    found = [bool(((out >= 0) & (out <= 1)).all()) and bool(((out.sum(-1) - 1).abs() < 1e-3).all()) for out in outputs]
    return Flag("probabilities", any(found), sum(found) / len(found))


def _rises(look: _Look) -> Flag | None:
    """Rows whose loss does not rise by a small step along its gradient, of those that have one."""
    if not _differentiable(look.predictor) or look.draws > 1 or look.predictor.stochastic:
        return None  # between two calls that draw, the loss moves by itself
    reach = 1e-3 * (look.ball.bounds[1] - look.ball.bounds[0]) if look.ball else 1e-3
    ball = Ball(reach, "l2", (-math.inf, math.inf))
    with facing(look.predictor, look.x, look.y, look.generator) as victim:
        rows = victim.rows
        found = victim.ascent(victim.x, rows, loss="margin", draws=1)
        step = reach * math.sqrt(look.x[0].numel()) * ball.steepest(found.gradient)
        promised = (found.gradient * step).flatten(1).sum(1)
        sure = promised > 1e-4 * (1 + found.margin.abs())  # less is lost in rounding
        rise = victim.margin(victim.x + step, rows, draws=1) - found.margin
    if not bool(sure.any()):
        return Flag("rises", False, 0.0)
    flat = float((rise < 0.2 * promised)[sure].double().mean())
    return Flag("rises", flat > 0.25, flat)


def _gradients_inside(look: _Look) -> Flag | None:
    """Whether a graph is recorded although nobody asked for one."""
    recorded: list[int] = []

    def seen(tensor: Tensor) -> Tensor:
        recorded.append(tensor.numel())
        return tensor

    watched = torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor)
    rest = facing(look.predictor, look.x[:2], look.y[:2], look.generator, by_gradient=False)
    with rest as victim, torch.no_grad(), watched:
        victim.log_probs(victim.x)
    return Flag("gradients_inside", bool(recorded), float(bool(recorded)))


def _worst_case(look: _Look) -> Flag | None:
    mended = _share(~look.before & look.after)
    return Flag("worst_case", mended > 0, mended)


def _differentiable(predictor: Predictor) -> bool:
    return all(part.differentiable for part in predictor.modules() if isinstance(part, Predictor))


def _share(rows: Tensor) -> float:
    return float(rows.double().mean())


MAKERS: tuple[Callable[[_Look], Flag | None], ...] = (
    _unbounded,
    _single_step,
    _black_box,
    _transfer,
    _more_steps,
    _random_points,
    _gradients,
    _randomness,
    _probabilities,
    _rises,
    _gradients_inside,
    _worst_case,
)
