"""From values to places on paper, and the round numbers that belong on an axis."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [start, stop], by logarithm where `log`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"Scale: wants low < high (both positive with log), got low={self.low}, high={self.high}")

    def __call__(self, value: float) -> float:
        """The place of a value; values outside are put on the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside, about so many."""
        if self.log:
            return _log_ticks(self.low, self.high, about)
        step = _step(self.low, self.high, about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def around(values: Iterable[float], *, include: Iterable[float] = (), margin: float = 0.06) -> tuple[float, float]:
    """Limits with some room around finite values; never empty."""
    known = [value for value in (*values, *include) if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = (high - low) * margin or max(abs(high), 1.0) * margin
    return low - room, high + room


def around_log(values: Iterable[float], *, margin: float = 0.08) -> tuple[float, float]:
    """Limits with some room around positive values, on a logarithmic axis."""
    low, high = around([math.log(value) for value in values if value > 0 and math.isfinite(value)], margin=margin)
    return math.exp(low), math.exp(high)


def tick_text(value: float) -> str:
    """A tick's label: as short as it can be."""
    if value == 0:
        return "0"
    if 1000 <= abs(value) < 100_000:
        return f"{value:,.0f}"
    if abs(value) >= 100_000 or abs(value) < 0.001:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.4g}"


def _step(low: float, high: float, about: int) -> float:
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(multiple * power for multiple in (1.0, 2.0, 2.5, 5.0, 10.0) if multiple * power >= raw * (1 - 1e-9))


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [m * 10.0**k for k in range(first, last + 1) for m in multiples]
        found = [round(tick, 12) for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) >= min(about, 3):
            return found
    return Scale(low, high, 0.0, 1.0).ticks(about)
