"""What a predictor said about a set of rows, small enough to keep: scores are computed from this and from nothing else.

One class for labels and one for real targets. Rows are flat (sites of a map count as rows, void ones are dropped), on
the CPU, in float32. What is stored is what is scored, so a new metric needs no new forward pass.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from levelhead.metrics.diversity import disagreement_by_row, member_errors, pairwise_kl_by_row
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.types import Batch, Targets

FOLDER = "predictions"
DETECTOR = "detector."  # before the name of a detector's scores in a file
SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class ClassBeliefs:
    """Beliefs about labels.

    log_probs  (row, class): of the mixture, in nats.
    total, aleatoric, epistemic  (row,): entropy, expected entropy, mutual information, in nats.
    y          (row,): the labels; -1 where a set has none. Soft labels are kept as their most likely class.
    log_density, sets, accepted  as in `Predictive`, or None.
    disagreement, divergence     (row,): how the members of a mixture differ, by `metrics.diversity`: the share of pairs
               that prefer different classes, the mean KL between pairs in nats. None of one member.
    member_errors, shared_errors  (row,): the shares of members, and of pairs of members, that are wrong; None of one
               member and without labels.
    detectors  scores of detectors by name, each (row,), higher where more out-of-distribution.

    Members themselves are not kept: their number may be any.
    """

    log_probs: Float[Tensor, "row class"]
    total: Float[Tensor, " row"]
    aleatoric: Float[Tensor, " row"]
    epistemic: Float[Tensor, " row"]
    y: Int[Tensor, " row"]
    log_density: Float[Tensor, " row"] | None = None
    sets: Bool[Tensor, "row class"] | None = None
    accepted: Bool[Tensor, " row"] | None = None
    disagreement: Float[Tensor, " row"] | None = None
    divergence: Float[Tensor, " row"] | None = None
    member_errors: Float[Tensor, " row"] | None = None
    shared_errors: Float[Tensor, " row"] | None = None
    detectors: Mapping[str, Float[Tensor, " row"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.total)

    @property
    def correct(self) -> Float[Tensor, " row"]:
        """1 where the likeliest class is the label, else 0; in double precision."""
        return (self.log_probs.argmax(-1) == self.y).double()

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
            **_between_members(belief, labels),
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


def _between_members(belief: CategoricalMixture, labels: Int[Tensor, "*batch"]) -> dict[str, Float[Tensor, " row"]]:
    """How the members of a mixture differ at every row, and where there are labels, how they err."""
    if belief.num_members < 2:
        return {}
    found = {"disagreement": disagreement_by_row(belief.logits), "divergence": pairwise_kl_by_row(belief.logits)}
    if (labels >= 0).any():
        errors = member_errors(belief.logits, labels.to(belief.logits.device))
        found |= {"member_errors": errors.alone, "shared_errors": errors.shared}
    return {name: t.float().reshape(-1) for name, t in found.items()}


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
