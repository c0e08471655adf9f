"""How much each layer that steps over pixels folds high frequencies onto low ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from levelhead.analyses.aliasing import aliasing_by_layer
from levelhead.analyses.suited import images, no_images
from levelhead.beliefs import Beliefs
from levelhead.measuring import Predict, Record, limited
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class Aliasing:
    """`levelhead.analyses.aliasing.aliasing_measure` of every strided convolution, pool and low-pass layer.

    limit  test images, drawn once with a fixed seed, the same for every predictor; None for all.
    p, on  the norm, 1 or 2, and what is compared: "magnitude", "power" or "complex" spectra.

    The records of a layer have its name as data and its place in depth (from 1) as severity; metrics `aliasing`, in the
    map's own units, and `relative_aliasing`, over the size of the low frequencies that should be there: 0 is none.
    Means over all members. Grabinski et al. (arXiv 2204.00491). Nothing for tables, and for networks that never step.
    """

    reference: ClassVar[Reference] = Reference(
        "Grabinski et al.",
        2022,
        arxiv="2204.00491",
        title="FrequencyLowCut Pooling - Plug & Play against Catastrophic Overfitting",
    )
    limit: int | None = 100
    p: int = 1
    on: str = "magnitude"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"Aliasing: limit must be at least 1, or None for all rows, got {self.limit}")
        if self.p not in (1, 2):
            raise ValueError(f"Aliasing: p must be 1 or 2, got {self.p}")
        if self.on not in ("magnitude", "power", "complex"):
            raise ValueError(f"Aliasing: on must be 'magnitude', 'power' or 'complex', got {self.on!r}")

    def why_not(self, predictor: Predictor, task: Task) -> str | None:
        """Why there is nothing to measure, where there is nothing."""
        missing = no_images(task)
        if missing is not None:
            return missing
        if not aliasing_by_layer(predictor, images(predictor, limited(task.test, 2))):
            return "no layer of this network steps over pixels"
        return None

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if self.why_not(predictor, task) is not None:
            return []
        rows = limited(task.test, self.limit)
        layers = aliasing_by_layer(predictor, images(predictor, rows), p=self.p, on=self.on)
        found: list[Record] = []
        for place, (name, layer) in enumerate(layers.items(), start=1):
            values = {"aliasing": layer.absolute, "relative_aliasing": layer.relative}
            found += as_records("aliasing", name, place, values, len(rows))
        return found

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """Nothing: maps are not stored."""
        return []
