"""How good and how calibrated a predictor is on the test rows as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import torch

from levelhead.all_scores import all_scores, member_scores
from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.measuring import Predict, Record
from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.tasks.task import Task

BATCH = 100


@dataclass(frozen=True)
class Clean:
    """All metrics of `levelhead.scores` on `task.test`, from one pass. Stored as `test`.

    metrics  "usual", or "all", which adds what few ask for: `levelhead.all_scores`; and, of a mixture over classes,
             more of how its members differ, from one more pass (members are not stored, so `score` cannot tell).
    """

    metrics: str = "usual"

    def __post_init__(self) -> None:
        if self.metrics not in ("usual", "all"):
            raise ValueError(f"Clean: metrics must be 'usual' or 'all', got {self.metrics!r}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        beliefs = predict("test", task.test)
        found = self.score({"test": beliefs})
        if self.metrics == "all" and isinstance(beliefs, ClassBeliefs):
            known = {record.metric for record in found}
            more = {name: value for name, value in between_members(predictor, task).items() if name not in known}
            found += as_records("clean", "test", None, more, len(beliefs))
        return found

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        if "test" not in stored:
            return []
        beliefs = stored["test"]
        measure = all_scores if self.metrics == "all" else scores
        return as_records("clean", "test", None, measure(beliefs), len(beliefs))


@torch.no_grad()
def between_members(predictor: Predictor, task: Task) -> dict[str, float]:
    """`member_scores` of the test rows, a mean over batches; nothing where the predictor has one member."""
    like = next((t for t in chain(predictor.parameters(), predictor.buffers()) if t.is_floating_point()), None)
    void, rows, total = task.likelihood.void, 0, dict[str, float]()
    for batch in task.test.ordered(BATCH):
        moved = batch if like is None else batch.to(like.device, like.dtype)
        belief = predictor(moved.x)
        if not isinstance(belief, CategoricalMixture) or belief.num_members < 2:
            return {}
        y = moved.y.argmax(-1) if moved.y.is_floating_point() else moved.y
        kept = torch.ones_like(y, dtype=torch.bool) if void is None else y != void
        count = int(kept.sum())
        if count:
            found = member_scores(belief.logits[:, kept], y[kept])
            known = total if rows else dict.fromkeys(found, 0.0)
            # what is infinite in one batch is infinite over all: absent
            total = {name: known[name] + count * found[name] for name in known.keys() & found.keys()}
            rows += count
    means = {name: value / rows for name, value in sorted(total.items())}
    if "disagreement" in means and means["member_accuracy"] < 1:  # a ratio of means, not a mean of ratios
        means["normalised_disagreement"] = means["disagreement"] / (1 - means["member_accuracy"])
    return means
