"""Which spatial frequencies the maps of a network hold, block by block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from levelhead.analyses.fourier import change_by_kind, fourier_profile
from levelhead.analyses.suited import images, no_blocks
from levelhead.beliefs import Beliefs
from levelhead.measuring import Predict, Record, limited
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task
from levelhead.types import Reference

PERCENT = (25, 50, 75, 100)  # of pi radians a pixel
NETWORK = "network"


@dataclass(frozen=True)
class FourierProfile:
    """Log amplitude of every block's maps at a quarter, a half, three quarters and all of the way from the mean to the
    highest frequency, less the amplitude of the mean; of all members and draws together.

    limit  test images, drawn once with a fixed seed, the same for every predictor; None for all.

    The records of a block have `<kind> <name>` as data, kind among stem, convolution, attention and mlp, and its place
    in depth (from 1) as severity; metrics `log_amplitude_25` to `_100`. The set `network` has the mean change of the
    last across the blocks of each kind that keep the size of the map, `change_across_<kind>`. Park & Kim (arXiv
    2202.06709): the profile rises across convolutions and falls across attention. Nothing for tables and multilayer
    perceptrons.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim", 2022, arxiv="2202.06709", title="How Do Vision Transformers Work?"
    )
    limit: int | None = 200

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"FourierProfile: limit must be at least 1, or None for all rows, got {self.limit}")

    def why_not(self, predictor: Predictor, task: Task) -> str | None:
        """Why there is nothing to measure, where there is nothing."""
        return no_blocks(predictor, task)

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if self.why_not(predictor, task) is not None:
            return []
        rows = limited(task.test, self.limit)
        profiles = fourier_profile(predictor, images(predictor, rows))
        found: list[Record] = []
        for place, profile in enumerate(profiles, start=1):
            amplitude = {f"log_amplitude_{share}": profile.at(share / 100) for share in PERCENT}
            found += as_records("fourier_profile", profile.block.label, place, amplitude, len(rows))
        changes = {f"change_across_{kind}": change for kind, change in change_by_kind(profiles).items()}
        return found + as_records("fourier_profile", NETWORK, None, changes, len(rows))

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """Nothing: maps are not stored."""
        return []
