"""What a predictor said about a set of rows, small enough to keep: scores are computed from this and from nothing else.

One class for labels and one for real targets. Rows are flat (sites of a map count as rows, void ones are dropped), on
the CPU, in float32. What is stored is what is scored, so a new metric needs no new forward pass.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import quote, unquote

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from levelhead.detectors._fit import Scorer
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Predictor
from levelhead.tasks.task import AnySplit, Task
from levelhead.types import Batch, Targets

FOLDER = "predictions"
DETECTOR = "detector."  # before the name of a detector's scores in a file
SUFFIX = ".safetensors"


class Record(NamedTuple):
    """One number of one evaluation: a row of every table.

    evaluation    which suite: clean, shift, ood, cost, ...
    data          the set of rows: test, a shift's name, an out-of-distribution set's name.
    severity      of the shift, 1 to 5; None where there is none.
    metric        what was measured; `<metric>_se` is the standard error of `<metric>` over the choice of rows.
    num_examples  rows behind the number.
    """

    evaluation: str
    data: str
    severity: int | None
    metric: str
    value: float
    num_examples: int


@dataclass(frozen=True, eq=False)
class ClassBeliefs:
    """Beliefs about labels.

    log_probs  (row, class): of the mixture, in nats.
    total, aleatoric, epistemic  (row,): entropy, expected entropy, mutual information, in nats.
    y          (row,): the labels; -1 where a set has none. Soft labels are kept as their most likely class.
    log_density, sets, accepted  as in `Predictive`, or None.
    detectors  scores of detectors by name, each (row,), higher where more out-of-distribution.
    """

    log_probs: Float[Tensor, "row class"]
    total: Float[Tensor, " row"]
    aleatoric: Float[Tensor, " row"]
    epistemic: Float[Tensor, " row"]
    y: Int[Tensor, " row"]
    log_density: Float[Tensor, " row"] | None = None
    sets: Bool[Tensor, "row class"] | None = None
    accepted: Bool[Tensor, " row"] | None = None
    detectors: Mapping[str, Float[Tensor, " row"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.total)

    @classmethod
    def of(
        cls,
        belief: CategoricalMixture,
        y: Targets,
        *,
        void: int | None = None,
        detectors: Mapping[str, Float[Tensor, "*batch"]] | None = None,
    ) -> Self:
        """The beliefs about one batch, without the sites whose label is `void`."""
        labels = y.argmax(-1) if y.is_floating_point() else y
        log_probs = belief.log_probs.float()
        if belief.logits.dtype.itemsize < 4:  # half precision is normalised to three digits only
            log_probs = log_probs.log_softmax(-1)
        flat: dict[str, Any] = {
            "log_probs": rearrange(log_probs, "... k -> (...) k"),
            "total": belief.total().float().reshape(-1),
            "aleatoric": belief.aleatoric().float().reshape(-1),
            "epistemic": belief.epistemic().float().reshape(-1),
            "y": labels.reshape(-1).to(log_probs.device),
            "log_density": None if belief.log_density is None else belief.log_density.float().reshape(-1),
            "sets": None if belief.sets is None else rearrange(belief.sets, "... k -> (...) k"),
            "accepted": None if belief.accepted is None else belief.accepted.reshape(-1),
            **flat_detectors(detectors),
        }
        if void is not None:
            kept = flat["y"] != void
            flat = {name: None if t is None else t[kept] for name, t in flat.items()}
        return cls(**_gathered(_at_rest(flat)))

    def tensors(self) -> dict[str, Tensor]:
        """What is there, by name."""
        return _by_name(self)


@dataclass(frozen=True, eq=False)
class TargetBeliefs:
    """Beliefs about real targets, in the targets' own units, members included: mixture scores need them.

    means, variances  (member, row, target); log_weights (member,).
    total, aleatoric, epistemic  (row,): variances, summed over targets.
    y  (row, target).
    log_density, accepted, detectors  as in `ClassBeliefs`; intervals as in `Predictive`, or None.
    """

    means: Float[Tensor, "member row target"]
    variances: Float[Tensor, "member row target"]
    log_weights: Float[Tensor, " member"]
    total: Float[Tensor, " row"]
    aleatoric: Float[Tensor, " row"]
    epistemic: Float[Tensor, " row"]
    y: Float[Tensor, "row target"]
    log_density: Float[Tensor, " row"] | None = None
    intervals: Float[Tensor, "row target 2"] | None = None
    accepted: Bool[Tensor, " row"] | None = None
    detectors: Mapping[str, Float[Tensor, " row"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.total)

    @classmethod
    def of(
        cls, belief: GaussianMixture, y: Targets, *, detectors: Mapping[str, Float[Tensor, "*batch"]] | None = None
    ) -> Self:
        """The beliefs about one batch."""
        flat: dict[str, Any] = {
            "means": rearrange(belief.means.float(), "member ... t -> member (...) t"),
            "variances": rearrange(belief.variances.float(), "member ... t -> member (...) t"),
            "log_weights": belief.log_weights.float(),
            "total": belief.total().float().reshape(-1),
            "aleatoric": belief.aleatoric().float().reshape(-1),
            "epistemic": belief.epistemic().float().reshape(-1),
            "y": rearrange(y.float(), "... t -> (...) t"),
            "log_density": None if belief.log_density is None else belief.log_density.float().reshape(-1),
            "intervals": None if belief.intervals is None else _flat_intervals(belief.intervals),
            "accepted": None if belief.accepted is None else belief.accepted.reshape(-1),
            **flat_detectors(detectors),
        }
        return cls(**_gathered(_at_rest(flat)))

    @property
    def mixture(self) -> GaussianMixture:
        """The predictive these are."""
        return GaussianMixture(self.means, self.variances, self.log_weights)

    def tensors(self) -> dict[str, Tensor]:
        """What is there, by name; with the mixture's mean and variance (row, target) for readers of the file."""
        return {**_by_name(self), "mean": self.mixture.mean, "variance": self.mixture.variance}


Beliefs = ClassBeliefs | TargetBeliefs


def flat_detectors(detectors: Mapping[str, Float[Tensor, "*batch"]] | None) -> dict[str, Float[Tensor, " row"]]:
    """Detectors' scores of a batch by row, under the names that a file gives them."""
    return {f"{DETECTOR}{name}": score.float().reshape(-1) for name, score in (detectors or {}).items()}


def _by_name(beliefs: "Beliefs") -> dict[str, Tensor]:
    """The tensors that are there, detectors' scores among them under the names that a file gives them."""
    own = {f.name: getattr(beliefs, f.name) for f in fields(beliefs) if f.name != "detectors"}
    return {name: t for name, t in own.items() if t is not None} | flat_detectors(beliefs.detectors)


def _gathered(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of beliefs from tensors by the names that a file gives them: the inverse of `_by_name`."""
    own = {name: t for name, t in tensors.items() if not name.startswith(DETECTOR)}
    return own | {
        "detectors": {name.removeprefix(DETECTOR): t for name, t in tensors.items() if name.startswith(DETECTOR)}
    }


def _flat_intervals(intervals: Float[Tensor, "*batch target 2"]) -> Float[Tensor, "row target 2"]:
    return rearrange(intervals.float(), "... target side -> (...) target side")


def _at_rest(tensors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """Without graph, on the CPU."""
    return {name: None if t is None else t.detach().cpu() for name, t in tensors.items()}


class Source(Protocol):
    """Rows in order, clean, in batches: a split, or one that is shifted on its way."""

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""


class Portion(Protocol):
    """Some rows of one or several sets, read once for all of them."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The sets."""

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[str, Batch]]:
        """Batches of at most `size` rows: set by set in the order of `keys`, each set's rows in order."""


class Predict(Protocol):
    """The beliefs about a source, stored under `key` and remembered, so that ten metrics cost one pass."""

    def __call__(
        self,
        key: str,
        source: Source,
        *,
        remember: bool = True,
        labelled: bool = True,
        scorers: Mapping[str, Scorer] | None = None,
    ) -> Beliefs:
        """The beliefs.

        remember  False where nobody will ask again.
        labelled  False where y says nothing (out-of-distribution sets), so that no row is void.
        scorers   fitted detectors by name; their scores are kept with the beliefs, under these names.
        """

    def portions(self, suite: str, about: Any, portions: Sequence[Portion]) -> Iterator[tuple[str, Beliefs]]:
        """The beliefs about every set that occurs in the portions, stored under its key, one set after the other.

        What an earlier call left of this suite is not computed again, if it was `about` the same (plain JSON) and the
        first set of the first portion comes out the same. No more is held than a portion, then one set.
        """


class Evaluation(Protocol):
    """A spec that measures a predictor on a task."""

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """The records, from passes asked of `predict`."""

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """The records that stored beliefs give, without a predictor; none where it measures something else."""


def of_batch(
    belief: Predictive,
    batch: Batch,
    *,
    void: int | None = None,
    detectors: Mapping[str, Float[Tensor, "*batch"]] | None = None,
) -> Beliefs:
    """The beliefs about one batch, with what detectors say about it."""
    if isinstance(belief, CategoricalMixture):
        return ClassBeliefs.of(belief, batch.y, void=void, detectors=detectors)
    assert isinstance(belief, GaussianMixture), "predictives are closed: categorical or Gaussian"
    return TargetBeliefs.of(belief, batch.y, detectors=detectors)


def join(parts: Sequence[Beliefs]) -> Beliefs:
    """The rows of several batches, in order."""
    first, merged = parts[0], dict[str, Any]()
    for item in fields(first):
        values = [getattr(part, item.name) for part in parts]
        if values[0] is None or item.name == "log_weights":
            merged[item.name] = values[0]
        elif item.name == "detectors":
            merged[item.name] = {name: torch.cat([value[name] for value in values]) for name in values[0]}
        else:
            merged[item.name] = torch.cat(values, dim=1 if item.name in ("means", "variances") else 0)
    return type(first)(**merged)


def rebatched(blocks: Iterator[Batch], size: int) -> Iterator[Batch]:
    """The same rows in batches of `size`: what is drawn block by block must not depend on the batch size."""
    held: Batch | None = None
    for block in blocks:
        held = block if held is None else _stacked(held, block)
        while len(held.x) >= size:
            yield _rows(held, slice(size))
            held = _rows(held, slice(size, None))
    if held is not None and len(held.x):
        yield held


def limited(split: AnySplit, limit: int | None) -> AnySplit:
    """As many rows of a split, in order, drawn with a fixed seed: the same for everybody who asks. None: all."""
    if limit is None or limit >= len(split):
        return split
    rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:limit]
    return split.take(rows.sort().values)


@contextmanager
def drawing(predictor: Predictor, noise: int | None) -> Iterator[None]:
    """The predictor's draws start at this seed for a while (None: fresh draws); every part gets its own seed back."""
    parts = [part for part in predictor.modules() if isinstance(part, Predictor)]
    held = [(part, vars(part)["noise"]) for part in parts if "noise" in vars(part)]
    try:
        predictor.with_noise(noise)
        yield
    finally:
        for part, seed in held:
            part.noise = seed


def stable_seed(*names: object) -> int:
    """A seed for something that has a name; the same on every machine."""
    text = json.dumps([str(name) for name in names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _stacked(first: Batch, second: Batch) -> Batch:
    x, y, index = (torch.cat(pair) for pair in zip(first[:3], second[:3], strict=True))
    return Batch(x, y, index)


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.index[rows])


def write(beliefs: Beliefs, key: str, folder: Path) -> Path:
    """Store beliefs under `key` in `folder`/predictions, in one move."""
    path = folder / FOLDER / f"{quote(key, safe='')}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({name: tensor.contiguous() for name, tensor in beliefs.tensors().items()}, scratch)
    os.replace(scratch, path)
    return path


def read(path: Path) -> Beliefs:
    """Beliefs from a file of `write`."""
    return from_named(load_file(path))


def from_named(tensors: Mapping[str, Tensor]) -> Beliefs:
    """Beliefs from their `tensors()`."""
    if "log_probs" in tensors:
        return ClassBeliefs(**_gathered(tensors))
    return TargetBeliefs(**_gathered({name: t for name, t in tensors.items() if name not in ("mean", "variance")}))


class Stored(Mapping[str, Beliefs]):
    """The beliefs in `folder`/predictions by key, read when asked for.

    Raises FileNotFoundError where the folder holds none.
    """

    def __init__(self, folder: str | Path) -> None:
        place = Path(folder) / FOLDER
        self._paths = {unquote(path.name.removesuffix(SUFFIX)): path for path in sorted(place.glob(f"*{SUFFIX}"))}
        if not self._paths:
            raise FileNotFoundError(
                f"{place} holds no stored predictions; evaluate with keep={str(folder)!r} writes them"
            )

    def __getitem__(self, key: str) -> Beliefs:
        return read(self._paths[key])

    def __contains__(self, key: object) -> bool:
        return key in self._paths  # without reading the file

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
