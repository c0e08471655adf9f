"""How much the network aliases while it trains: a measure an epoch, and an end when it jumps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

import torch

from levelhead.analyses.aliasing import Aliasing, aliasing_by_layer
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose, Reference, Scalar


@dataclass(frozen=True)
class AliasingWatch:
    """The objective as it is; at the end of each epoch, the aliasing of the layers that step over pixels.

    It goes into the fit's log, on the same training rows each time: `aliasing` is the mean over layers of
    `levelhead.analyses.aliasing`, `relative_aliasing` that of the measure over the size of the map's low frequencies,
    which does not grow with the weights. Both are 0 for a network that never steps over pixels. Aliasing rises where
    single-step adversarial training collapses, and watching it costs a pass, no attack.

    rows    training rows that the measure is taken on.
    layers  words, of which a layer's name is to hold one; none: every layer that steps over pixels.
    factor  end the fit after an epoch whose relative aliasing exceeds `factor` times the median of the `window` epochs
            before it, once there are as many. The paper gives no threshold; 1.25 is a first guess. None: only write.

    Raises ValueError for settings without sense; CannotCompose where no layer has such a name.
    """

    reference: ClassVar = Reference(
        "Grabinski, Keuper & Keuper", 2022, title="Aliasing and adversarial robust generalization of CNNs"
    )
    rows: int = 64
    layers: tuple[str, ...] = ()
    factor: float | None = None
    window: int = 10

    def __post_init__(self) -> None:
        if self.rows < 1 or self.window < 1:
            raise ValueError(f"AliasingWatch: rows and window must be at least 1, got {self.rows} and {self.window}")
        if self.factor is not None and self.factor <= 0:
            raise ValueError(f"AliasingWatch: factor must be positive, or None, got {self.factor}")

    def start(self, network: Network, task: Task, run: Run) -> "_Watching":
        """The term of one fit, with the rows that it looks at."""
        shuffled = torch.randperm(len(task.train), generator=run.generator("aliasing_watch"))
        split = task.train.take(shuffled[: self.rows].sort().values)
        batch = next(split.ordered(len(split))).to(run.device, run.runtime.dtype)
        watching = _Watching(self, batch)
        watching.measure(network)  # a wrong name is to speak now, not an epoch later
        return watching


class _Watching:
    """The relative measure of every epoch so far, and the absolute one of the last."""

    def __init__(self, spec: AliasingWatch, batch: Batch) -> None:
        self.spec, self.batch = spec, batch
        self.history: list[float] = []
        self.absolute = 0.0

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective, unchanged."""
        return inner(forward)

    def end_epoch(self, network: Network) -> None:
        """Measure."""
        found = self.measure(network)
        self.absolute = mean(one.absolute for one in found)
        self.history.append(mean(one.relative for one in found))

    def measure(self, network: Network) -> list[Aliasing]:
        """The aliasing of the watched layers."""
        if self.batch.x.ndim != 4:
            return []  # rows of a table have no pixels to step over
        found = aliasing_by_layer(network, self.batch.x)
        words = self.spec.layers
        watched = [one for name, one in found.items() if not words or any(word in name for word in words)]
        if words and not watched:
            raise CannotCompose(
                f"AliasingWatch: no layer that steps over pixels has one of {words} in its name; choose among "
                f"{', '.join(found) or 'none: this network has no such layer, leave layers empty'}"
            )
        return watched

    @property
    def watched(self) -> Mapping[str, float]:
        """See `Watching`."""
        return {"aliasing": self.absolute, "relative_aliasing": self.history[-1]} if self.history else {}

    @property
    def finished(self) -> bool:
        """See `Watching`."""
        return self.spec.factor is not None and jumped(self.history, self.spec.factor, self.spec.window)

    def state_dict(self) -> dict[str, Any]:
        """What was measured."""
        return {"history": list(self.history), "absolute": self.absolute}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.history, self.absolute = list(state["history"]), state["absolute"]


def mean(numbers: Iterable[float]) -> float:
    """Their mean; 0 of none."""
    found = list(numbers)
    return sum(found) / max(len(found), 1)


def jumped(history: list[float], factor: float, window: int) -> bool:
    """Whether the last number exceeds `factor` times the median of the `window` before it."""
    return len(history) > window and history[-1] > factor * median(history[-1 - window : -1])
