"""How much the maps of a network vary over places, and from pass to pass, block by block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from levelhead.analyses.suited import images, no_blocks
from levelhead.analyses.variance import feature_map_variance, pass_variance
from levelhead.beliefs import Beliefs
from levelhead.measuring import Predict, Record, limited
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class FeatureMapVariance:
    """Variance over the places of every block's maps; of networks that draw also over passes, at every point.

    limit   test images, drawn once with a fixed seed, the same for every predictor; None for all.
    passes  of a network that draws, at least 2.

    The records of a block have `<kind> <name>` as data and its place in depth (from 1) as severity; metrics
    `spatial_variance` and `pass_variance`, means over images and channels, of all members together. Park & Kim (arXiv
    2105.12639, 2202.06709): convolutions raise it, smoothing and attention lower it. Nothing for tables and multilayer
    perceptrons.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim",
        2022,
        arxiv="2105.12639",
        title="Blurs Behave Like Ensembles: Spatial Smoothings to Improve Accuracy, Uncertainty, and Robustness",
    )
    limit: int | None = 200
    passes: int = 5

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"FeatureMapVariance: limit must be at least 1, or None for all rows, got {self.limit}")
        if self.passes < 2:
            raise ValueError(f"FeatureMapVariance: passes must be at least 2, got {self.passes}")

    def why_not(self, predictor: Predictor, task: Task) -> str | None:
        """Why there is nothing to measure, where there is nothing."""
        return no_blocks(predictor, task)

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if self.why_not(predictor, task) is not None:
            return []
        rows = limited(task.test, self.limit)
        x = images(predictor, rows)
        draws = any(network.stochastic for network in predictor.networks())
        over_passes = {v.block: v.value for v in pass_variance(predictor, x, passes=self.passes)} if draws else {}
        found: list[Record] = []
        for place, variance in enumerate(feature_map_variance(predictor, x), start=1):
            values = {"spatial_variance": variance.value}
            if variance.block in over_passes:
                values["pass_variance"] = over_passes[variance.block]
            found += as_records("feature_map_variance", variance.block.label, place, values, len(rows))
        return found

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """Nothing: maps are not stored."""
        return []
