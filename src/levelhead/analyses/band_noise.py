"""Which spatial frequencies a predictor lives on: what noise in one band at a time leaves of its accuracy."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.shifts.frequency_noise import FrequencyNoise

FREQUENCIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Band(NamedTuple):
    """Accuracy under noise of one band, and its change from the clean images'. Frequencies in units of pi."""

    frequency: float
    accuracy: float
    change: float
    rows: int


def noise_robustness(
    predict: Callable[[Tensor], Float[Tensor, "batch class"]],
    x: Float[Tensor, "batch channel h w"],
    y: Int[Tensor, " batch"],
    *,
    frequencies: Sequence[float] = FREQUENCIES,
    half_width: float = 0.05,
    severity: int = 3,
    seed: int = 0,
    batch_size: int = 100,
) -> tuple[Band, ...]:
    """Accuracy on images in [0, 1] under `levelhead.shifts.frequency_noise.FrequencyNoise` of each frequency.

    Every band has noise of the same norm (of `severity`, 1 to 5) before clipping, so that bands compare with one
    another; the same noise for every predictor. Park & Kim (arXiv 2202.06709) report the change by frequency.
    """

    def accuracy(images: Tensor) -> float:
        answers = torch.cat([predict(some).argmax(-1).to(y.device) for some in images.split(batch_size)])
        return float((answers == y).double().mean())

    clean = accuracy(x)
    found = []
    for frequency in frequencies:
        shift = FrequencyNoise(frequency=frequency, half_width=half_width)
        under = accuracy(shift(x, severity, torch.Generator().manual_seed(seed)))
        found.append(Band(frequency, under, under - clean, len(x)))
    return tuple(found)
