"""What is left of quality and calibration when somebody moves each image a little, with the predictor in hand."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch

from levelhead.attack_check import check_attack
from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD
from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.detection import detection_scores
from levelhead.measuring import Predict, Record, drawing, limited, rebatched, stable_seed
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.tasks.task import Split, Task
from levelhead.types import Batch, Reference
from levelhead.values import snake

PREFIX = "attack-"
CLEAN, WORST, CHECK = "clean", "worst", "check"
ALONG = "_by_radius"
EPS = "-eps"
BLOCK = 100  # rows attacked together, whatever the batch size
SLACK = 1e-9


@dataclass(frozen=True)
class Attack:
    """All metrics of `levelhead.scores` on attacked test images, for each attack, and on the same images unattacked.

    attacks  specs of `levelhead.attacks`, each with its own radius. They go through the mixture that is deployed; a
             stochastic predictor draws afresh at each of their calls, and is scored under the evaluation's noise.
    radii    other radii for the last of the attacks: what becomes of accuracy and uncertainty as the attacker may move
             further. Recorded as `<name>_by_radius` with the place of the radius as severity, its own radius included,
             and the radius itself as metric `eps`. The last attack of minimum norm has none: leave radii empty.
    limit    rows, drawn once with a fixed seed, the same for every predictor; None for all.
    check    rows for `levelhead.attack_check` of the last attack that has a radius: each check is a record of the set
             `check`, 1 where it is raised. None leaves it out.

    Beside the scores, how well each uncertainty tells attacked images from the same images unattacked
    (`levelhead.detection`), and `worst`: accuracy when each row meets the worst of all attacks and of no attack. A
    number from gradients is an upper bound on robustness. Tables give no records: a radius means nothing there. Stored
    as `attack-<name>`, with `-eps<radius>` where there is one. Raises CannotCompose for predictors without a gradient
    in x.
    """

    reference: ClassVar = Reference(
        "Madry et al.", 2018, arxiv="1706.06083", title="Towards deep learning models resistant to adversarial attacks"
    )
    attacks: tuple[Any, ...] = (FGSM(), PGD())
    radii: tuple[float, ...] = (2 / 255, 4 / 255, 16 / 255)
    limit: int | None = 1000
    check: int | None = 64

    def __post_init__(self) -> None:
        named = [name(attack) for attack in self.attacks]
        if not named or len(set(named)) < len(named):
            raise ValueError(f"Attack: attacks wants different kinds (or norms), at least one, got {named}")
        if len(set(self.radii)) < len(self.radii) or any(radius <= 0 for radius in self.radii):
            raise ValueError(f"Attack: radii wants different positive numbers, got {self.radii}")
        if self.radii and radius_of(self.attacks[-1]) is None:
            raise ValueError(f"Attack: radii wants a last attack that has an eps, got {self.attacks[-1]}")
        for field in ("limit", "check"):
            if (given := getattr(self, field)) is not None and given < 1:
                raise ValueError(f"Attack: {field} must be at least 1, or None, got {given}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if task.test.x.ndim != 4:
            return []
        split = limited(task.test, self.limit)
        found = {f"{PREFIX}{CLEAN}": predict(f"{PREFIX}{CLEAN}", split)}
        for attack in self.all_attacks:
            found[key(attack)] = predict(key(attack), _Attacked(split, attack, predictor))
        return self.score(found) + self._checked(predictor, split)

    @property
    def all_attacks(self) -> tuple[Any, ...]:
        """The attacks, and the last of them at the other radii."""
        last = self.attacks[-1]
        other = (radius for radius in self.radii if abs(radius - last.eps) > SLACK)
        return (*self.attacks, *(replace(last, eps=radius) for radius in other))

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        keys = [known for known in stored if known.startswith(PREFIX)]
        clean = stored.get(f"{PREFIX}{CLEAN}")
        found: list[Record] = []
        curves: dict[str, list[tuple[float, dict[str, float], int]]] = defaultdict(list)
        own = {key(attack) for attack in self.attacks}
        right: list[torch.Tensor] = []
        for known in keys:
            beliefs = stored[known]
            assert isinstance(beliefs, ClassBeliefs), "attacks refuse everything else"
            data, dash, radius = known.removeprefix(PREFIX).rpartition(EPS)
            measured = scores(beliefs)
            if clean is not None and known != f"{PREFIX}{CLEAN}":
                measured |= detection_scores(clean, beliefs)
            if dash:
                measured["eps"] = float(radius)
                curves[data].append((float(radius), measured, len(beliefs)))
            if not dash or known in own:
                found += as_records("attack", data if dash else radius, None, measured, len(beliefs))
                right.append(beliefs.log_probs.argmax(-1) == beliefs.y)
        for data, points in curves.items():
            if len(points) > 1:
                for place, (_, measured, rows) in enumerate(sorted(points, key=lambda point: point[0]), start=1):
                    found += as_records("attack", f"{data}{ALONG}", place, measured, rows)
        if right:
            standing = torch.stack(right).all(0).double()
            found += as_records("attack", WORST, None, {"accuracy": float(standing.mean())}, len(standing))
        return found

    def _checked(self, predictor: Predictor, split: Split) -> list[Record]:
        attack = next((attack for attack in reversed(self.attacks) if radius_of(attack) is not None), None)
        if self.check is None or attack is None:
            return []
        batch = next(limited(split, self.check).ordered(self.check))
        batch = batch.to(*_place(predictor, batch))
        with drawing(predictor, None):
            flags = check_attack(predictor, batch.x, batch.y, attack, seed=stable_seed(CHECK))
        found = {flag.name: float(flag.raised) for flag in flags}
        return as_records("attack", CHECK, None, found, len(batch.x))


def name(attack: Any) -> str:
    """Of an attack among others: its kind, and its norm where it is not the largest coordinate."""
    kind = snake(type(attack).__name__)
    return f"{kind}_l2" if getattr(attack, "norm", None) == "l2" else kind


def radius_of(attack: Any) -> float | None:
    """Its eps; None for attacks of minimum norm."""
    return next((float(attack.eps) for field in fields(attack) if field.name == "eps"), None)


def key(attack: Any) -> str:
    """Under which its beliefs are stored."""
    radius = radius_of(attack)
    return f"{PREFIX}{name(attack)}" + ("" if radius is None else f"{EPS}{radius:.6g}")


def _place(predictor: Predictor, batch: Batch) -> tuple[torch.device, torch.dtype]:
    like = next((p for p in predictor.parameters() if p.is_floating_point()), batch.x)
    return like.device, like.dtype


@dataclass(frozen=True, eq=False)
class _Attacked:
    """A split whose images are attacked as they are read."""

    split: Split
    attack: Any
    predictor: Predictor

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""
        return rebatched(self._blocks(), size)

    def _blocks(self) -> Iterator[Batch]:
        for clean in self.split.ordered(BLOCK):
            batch = clean.to(*_place(self.predictor, clean))
            # the same streams at every radius
            generator = torch.Generator().manual_seed(stable_seed(name(self.attack), int(batch.index[0])))
            with drawing(self.predictor, None):  # fresh draws at each call, from the attack's stream
                moved = self.attack(self.predictor, batch.x, batch.y, generator)
            yield batch._replace(x=moved)  # outside, so that it is scored under the evaluation's noise
