"""What noise in one band of spatial frequencies at a time leaves of a predictor's accuracy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from levelhead.analyses.band_noise import FREQUENCIES
from levelhead.analyses.suited import no_answers, no_images
from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.measuring import Predict, Record, limited, rebatched, stable_seed
from levelhead.metrics.classification import nll
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.shifts.frequency_noise import FrequencyNoise
from levelhead.tasks.split import Split
from levelhead.tasks.stored import StoredSplit
from levelhead.tasks.task import Task
from levelhead.types import Batch, Reference

PREFIX = "band_noise-"
CLEAN = "clean"
BLOCK = 250  # images that share a generator, whatever the batch size


@dataclass(frozen=True)
class BandNoise:
    """Accuracy and NLL on test images under `levelhead.shifts.frequency_noise` of each band, and without noise.

    frequencies  middles of the bands, in units of pi radians a pixel, growing.
    half_width   of every band, in the same units.
    severity     1 to 5: how strong the noise is; of one norm in every band, before clipping.
    limit        test images, drawn once with a fixed seed, the same for every predictor; None for all.

    The records of a band have its frequency as data and its place (from 1) as severity: metrics `accuracy`
    and `accuracy_change` with their standard errors over images, `nll` and `frequency`; those of the set `clean` are
    without noise. Park & Kim (arXiv 2202.06709): convolutional networks lose most at high frequencies, transformers at
    low ones. Nothing for tables. Stored as `band_noise-<frequency>`.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim", 2022, arxiv="2202.06709", title="How Do Vision Transformers Work?"
    )
    frequencies: tuple[float, ...] = FREQUENCIES
    half_width: float = 0.05
    severity: int = 3
    limit: int | None = 500

    def __post_init__(self) -> None:
        if not self.frequencies or list(self.frequencies) != sorted(set(self.frequencies)):
            raise ValueError(f"BandNoise: frequencies wants growing numbers, at least one; got {self.frequencies}")
        for shift in self.shifts.values():
            if self.severity not in shift.severities:
                raise ValueError(f"BandNoise: severity must be one of {shift.severities}, got {self.severity}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"BandNoise: limit must be at least 1, or None for all rows, got {self.limit}")

    @property
    def shifts(self) -> dict[str, FrequencyNoise]:
        """The noise of each band, by key."""
        return {
            f"{PREFIX}{frequency:.4f}": FrequencyNoise(frequency=frequency, half_width=self.half_width)
            for frequency in self.frequencies
        }

    def why_not(self, predictor: Predictor, task: Task) -> str | None:
        """Why there is nothing to measure, where there is nothing."""
        return no_images(task) or no_answers(task)

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if self.why_not(predictor, task) is not None:
            return []
        rows = limited(task.test, self.limit)
        found = {f"{PREFIX}{CLEAN}": predict(f"{PREFIX}{CLEAN}", rows)}
        for key, shift in self.shifts.items():
            found[key] = predict(key, _Noisy(rows, shift, self.severity), remember=False)
        return self.score(found)

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        clean = stored.get(f"{PREFIX}{CLEAN}")
        if not isinstance(clean, ClassBeliefs):
            return []
        found = as_records("band_noise", CLEAN, None, _quality(clean), len(clean))
        bands = sorted(key for key in stored if key.startswith(PREFIX) and key != f"{PREFIX}{CLEAN}")
        before = clean.correct
        for place, key in enumerate(bands, start=1):
            beliefs = stored[key]
            assert isinstance(beliefs, ClassBeliefs), "why_not refuses everything else"
            frequency, change = float(key.removeprefix(PREFIX)), beliefs.correct - before
            values = {
                **_quality(beliefs),
                "accuracy_change": float(change.mean()),
                "accuracy_change_se": float(change.std()) / len(beliefs) ** 0.5,
                "frequency": frequency,
            }
            found += as_records("band_noise", f"{frequency:g}", place, values, len(beliefs))
        return found


@dataclass(frozen=True, eq=False)
class _Noisy:
    """A split under noise, drawn block by block."""

    split: Split | StoredSplit
    shift: FrequencyNoise
    severity: int

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""
        return rebatched((self._shifted(block) for block in self.split.ordered(BLOCK)), size)

    def _shifted(self, block: Batch) -> Batch:
        seed = stable_seed("band_noise", self.shift.frequency, self.severity, int(block.index[0]))
        noisy = self.shift(block.x, self.severity, torch.Generator().manual_seed(seed))
        return block._replace(x=noisy)


def _quality(beliefs: ClassBeliefs) -> dict[str, float]:
    accuracy = float(beliefs.correct.mean())
    error = (accuracy * (1 - accuracy) / len(beliefs)) ** 0.5
    return {"accuracy": accuracy, "accuracy_se": error, "nll": float(nll(beliefs.log_probs.double(), beliefs.y))}
