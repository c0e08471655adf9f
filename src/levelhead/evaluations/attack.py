"""What is left of quality and calibration when somebody moves each image a little, with the predictor in hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD
from levelhead.beliefs import Beliefs, ClassBeliefs, Predict, Record, drawing, limited, rebatched, stable_seed
from levelhead.passes import seeded
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.tasks.task import Split, Task
from levelhead.types import Batch, Reference
from levelhead.values import snake

PREFIX = "attack-"
CLEAN = "clean"
BLOCK = 100  # rows attacked together, whatever the batch size


@dataclass(frozen=True)
class Attack:
    """All metrics of `levelhead.scores` on attacked test images, for each attack, and on the same images unattacked.

    attacks  specs of `levelhead.attacks`, each with its own radius. They go through the mixture that is deployed; a
             stochastic predictor draws afresh at each of their calls, and is scored under the evaluation's noise.
    limit    rows, drawn once with a fixed seed, the same for every predictor; None for all.

    Also `worst`: accuracy when each row meets the worst of all attacks and of no attack. A number from gradients is an
    upper bound on robustness. Tables give no records: a radius means nothing there. Stored as `attack-<name>`.
    Raises CannotCompose for predictors without a gradient in x.
    """

    reference: ClassVar = Reference(
        "Madry et al.", 2018, arxiv="1706.06083", title="Towards deep learning models resistant to adversarial attacks"
    )
    attacks: tuple[Any, ...] = (FGSM(), PGD())
    limit: int | None = 1000

    def __post_init__(self) -> None:
        named = [snake(type(attack).__name__) for attack in self.attacks]
        if not named or len(set(named)) < len(named):
            raise ValueError(f"Attack: attacks wants different kinds, at least one, got {named}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"Attack: limit must be at least 1, or None for all rows, got {self.limit}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if task.test.x.ndim != 4:
            return []
        split = limited(task.test, self.limit)
        found = {f"{PREFIX}{CLEAN}": predict(f"{PREFIX}{CLEAN}", split)}
        for attack in self.attacks:
            key = f"{PREFIX}{snake(type(attack).__name__)}"
            found[key] = predict(key, _Attacked(split, attack, key, predictor))
        return self.score(found)

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        found: list[Record] = []
        right: list[torch.Tensor] = []
        for key in stored:
            if key.startswith(PREFIX):
                beliefs = stored[key]
                found += as_records("attack", key.removeprefix(PREFIX), None, scores(beliefs), len(beliefs))
                assert isinstance(beliefs, ClassBeliefs), "attacks refuse everything else"
                right.append(beliefs.log_probs.argmax(-1) == beliefs.y)
        if right:
            standing = torch.stack(right).all(0).double()
            found += as_records("attack", "worst", None, {"accuracy": float(standing.mean())}, len(standing))
        return found


@dataclass(frozen=True, eq=False)
class _Attacked:
    """A split whose images are attacked as they are read."""

    split: Split
    attack: Any
    name: str
    predictor: Predictor

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""
        return rebatched(self._blocks(), size)

    def _blocks(self) -> Iterator[Batch]:
        like = next(
            (p for p in self.predictor.parameters() if p.is_floating_point()), self.split.x.new_zeros(0).float()
        )
        for clean in self.split.ordered(BLOCK):
            batch = clean.to(like.device, like.dtype)
            seed = stable_seed(self.name, int(batch.index[0]))
            generator = torch.Generator().manual_seed(seed)
            # fresh draws at each call, from a stream of our own
            with drawing(self.predictor, None), seeded(seed, like.device):
                moved = self.attack(self.predictor, batch.x, batch.y, generator)
            yield batch._replace(x=moved)  # outside, so that it is scored under the evaluation's noise
