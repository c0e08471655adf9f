"""Predictions of any library as beliefs: named arrays in, checked, what is missing computed, and a receipt of both.

docs/predictions.md says which arrays a file may hold. What cannot be right is refused, never mended.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.arrays import read_arrays
from levelhead.beliefs import DETECTOR, Beliefs, ClassBeliefs, TargetBeliefs, from_named
from levelhead.metrics.rows import NORMALISATION_TOLERANCE, labelled_rows, normalised_rows
from levelhead.predictive import GaussianMixture, along_members, entropy, normalised
from levelhead.types import LevelheadError

CLASSES, TARGETS, SAMPLES = "classification", "regression", "samples"
ALIASES = {"labels": "y", "targets": "y", "mean": "means", "variance": "variances", "std": "stds"}
CLASS_ARRAYS = ("log_probs", "probs", "logits")
EXTRA = ("log_weights", "weights", "total", "aleatoric", "epistemic", "log_density", "sets", "accepted", "intervals")
KNOWN = {"y", "means", "variances", "stds", "samples", *CLASS_ARRAYS, *EXTRA}
UNCERTAINTY_TOLERANCE = 0.02  # of a given entropy or variance, against the one that follows from the rest


class BadPredictions(LevelheadError, ValueError):
    """A file of predictions that cannot be right; the text says which array, what is wrong and what is wanted."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a file says.

    beliefs  for the suites; None for samples.
    members  (member, row, class): log probabilities of each member, where a file of classes has them.
    samples  (sample, row, target) and their y (row, target), where that is all there is.
    receipt  plain JSON: digest and size of the file, its arrays, what was computed from what, what was checked.
    """

    beliefs: Beliefs | None
    receipt: dict[str, Any]
    members: Float[Tensor, "member row class"] | None = None
    samples: Float[Tensor, "sample row target"] | None = None
    y: Float[Tensor, "row target"] | Int[Tensor, " row"] | None = None

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self.receipt["rows"])


def read_predictions(path: str | Path, *, labelled: bool = True, void: int | None = None) -> Predictions:
    """The predictions in a .safetensors, .npz or .csv file.

    labelled  False for out-of-distribution rows: y is not looked at.
    void      the label of rows and sites that do not count.

    Raises BadPredictions for files that cannot be right.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        raw = read_arrays(path)
        found = of_arrays(raw, labelled=labelled, void=void)
    except ValueError as error:
        said = str(error)
        raise BadPredictions(said if said.startswith(str(path)) else f"{path}: {said}") from None
    source = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    arrays = {name: f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for name, t in sorted(raw.items())}
    receipt = {**source, "arrays": arrays, **found.receipt}
    return Predictions(found.beliefs, receipt, found.members, found.samples, found.y)


def of_arrays(arrays: Mapping[str, Tensor], *, labelled: bool = True, void: int | None = None) -> Predictions:
    """The predictions that named arrays are; see `read_predictions`."""
    own = {"total", "aleatoric", "epistemic", "y"}
    if own <= arrays.keys() and ("log_probs" in arrays or {"means", "variances", "log_weights"} <= arrays.keys()):
        return _own(arrays, labelled=labelled)
    named: dict[str, Tensor] = {}
    for name, array in arrays.items():
        key = ALIASES.get(name, name)
        if key not in KNOWN and not name.startswith(DETECTOR):
            raise ValueError(f"{name} is no array that predictions have; there are {', '.join(sorted(KNOWN))}")
        if key in named:
            raise ValueError(f"{name} and another array are both {key}; give one of them")
        if array.is_floating_point() and bool(array.isnan().any()):
            raise ValueError(f"{name}: {int(array.isnan().sum())} of {array.numel()} values are NaN")
        named[key] = array
    kinds = [name for name in (*CLASS_ARRAYS, "means", "samples") if name in named]
    if len(kinds) != 1:
        raise ValueError(
            f"wants exactly one of {', '.join(CLASS_ARRAYS)} (classes), means (targets), samples; got {kinds or 'none'}"
        )
    if kinds[0] in CLASS_ARRAYS:
        return _classes(named, kinds[0], labelled=labelled, void=void)
    if "y" not in named:
        raise ValueError("y is missing: the targets, one a row")
    return _samples(named) if kinds[0] == "samples" else _targets(named)


def _own(arrays: Mapping[str, Tensor], *, labelled: bool) -> Predictions:
    """A file that this library wrote: scored as it is, to the bit, after the same checks."""
    beliefs = from_named(arrays)
    receipt: dict[str, Any] = {"rows": len(beliefs), "computed": {"beliefs": "none: stored as levelhead writes them"}}
    for name in ("total", "aleatoric", "epistemic"):
        _check_finite(name, getattr(beliefs, name))
    if isinstance(beliefs, ClassBeliefs):
        if labelled:
            labelled_rows(beliefs.log_probs, beliefs.y)
        else:
            normalised_rows(beliefs.log_probs)
        _check_near("total", beliefs.total, entropy(beliefs.log_probs.double()))
        receipt |= {"kind": CLASSES, "classes": beliefs.log_probs.shape[-1], "checked": _checked(beliefs, labelled)}
        return Predictions(beliefs, receipt, y=beliefs.y)
    _check_variances(beliefs.variances)
    _check_near("total", beliefs.total, whole := beliefs.mixture.total().double(), whole)
    receipt |= {"kind": TARGETS, "members": len(beliefs.means), "targets": beliefs.y.shape[-1]}
    return Predictions(beliefs, receipt, y=beliefs.y)


def _classes(named: dict[str, Tensor], kind: str, *, labelled: bool, void: int | None) -> Predictions:
    values, computed = named[kind].double(), dict[str, str]()
    if kind == "probs":
        if not bool(((values >= 0) & (values <= 1 + NORMALISATION_TOLERANCE)).all()):
            low, high = (float(v) for v in values.aminmax())
            raise ValueError(f"probs: wants numbers in [0, 1], got {low:.6g} ... {high:.6g}; logits are named logits")
        values, computed["log_probs"] = values.log(), "log of probs"
    elif kind == "logits":
        values, computed["log_probs"] = values.log_softmax(-1), "log_softmax of logits"
    labels = _labels(named["y"]) if labelled and "y" in named else None
    if labelled and labels is None:
        raise ValueError("y is missing: the label of each row, an integer from 0")
    flat = 1 if labels is None else labels.ndim
    if values.ndim not in (flat + 1, flat + 2) or (labels is not None and values.shape[-1 - flat : -1] != labels.shape):
        wanted = "(row, class)" if labels is None else f"({', '.join(map(str, labels.shape))}, class)"
        raise ValueError(
            f"{kind}: wants shape {wanted}, or with a leading member axis, to match y; got {tuple(values.shape)}"
        )
    members = values if values.ndim == flat + 2 else values[None]
    members = rearrange(members, "member ... k -> member (...) k")
    y = torch.full(members.shape[1:2], -1) if labels is None else labels.reshape(-1)
    kept = torch.ones_like(y, dtype=torch.bool) if void is None or labels is None else y != void
    members, y = members[:, kept], y[kept]
    weights = _log_weights(named, members)
    total = torch.logsumexp(members, dim=-1).exp()
    if not bool(((total - 1).abs() <= NORMALISATION_TOLERANCE).all()):
        member, row = divmod(int((total - 1).abs().argmax()), len(y))
        where = f"member {member}, " if len(members) > 1 else ""
        raise ValueError(
            f"{kind}: probabilities must sum to one within {NORMALISATION_TOLERANCE:g}; {where}row {row} sums to "
            f"{float(total[member, row]):.6g}{'; logits are named logits' if kind == 'log_probs' else ''}"
        )
    if len(members) > 1:
        log_probs = torch.logsumexp(members + along_members(weights, 3), dim=0)
        computed["mixture"] = f"mean of {len(members)} members' probabilities"
    else:
        log_probs = members[0]
    own = {
        "total": entropy(log_probs),
        "aleatoric": (entropy(members) * along_members(weights, 2).exp()).sum(0),
    }
    own["epistemic"] = (own["total"] - own["aleatoric"]).clamp_min(0.0)
    rows = _rows(named, own, kept, computed)
    sets = named.get("sets")
    beliefs = ClassBeliefs(log_probs=log_probs, y=y, sets=None if sets is None else sets.bool()[kept], **rows)
    if labelled:
        labelled_rows(log_probs, y)
    receipt = {
        "kind": CLASSES,
        "rows": len(y),
        "void_rows": int((~kept).sum()),
        "classes": log_probs.shape[-1],
        "members": len(members),
        "computed": computed,
        "checked": _checked(beliefs, labelled),
    }
    return Predictions(beliefs, receipt, members if len(members) > 1 else None, y=y)


def _targets(named: dict[str, Tensor]) -> Predictions:
    y, computed = _column(named["y"].double()), dict[str, str]()
    spread = [name for name in ("variances", "stds") if name in named]
    if len(spread) != 1:
        raise ValueError(f"means want exactly one of variances, stds beside them; got {spread or 'none'}")
    means, variances = (_per_member(name, named[name].double(), y) for name in ("means", spread[0]))
    if spread == ["stds"]:
        if not bool((variances > 0).all()):
            raise ValueError(f"stds: wants numbers above 0, the smallest is {float(variances.amin()):.3g}")
        variances, computed["variances"] = variances.square(), "squares of stds"
    if means.shape != variances.shape:
        raise ValueError(f"{spread[0]}: wants the shape of means, {tuple(means.shape)}; got {tuple(variances.shape)}")
    for name, array in (("y", y), ("means", means)):
        _check_finite(name, array)
    _check_variances(variances)
    mixture = GaussianMixture(means, variances, _log_weights(named, means))
    own = {"total": mixture.total(), "aleatoric": mixture.aleatoric(), "epistemic": mixture.epistemic()}
    rows = _rows(named, own, torch.ones(len(y), dtype=torch.bool), computed, scale=own["total"])
    beliefs = TargetBeliefs(means=means, variances=variances, log_weights=mixture.log_weights, y=y, **rows)
    sizes = {"rows": len(y), "targets": y.shape[-1], "members": len(means)}
    return Predictions(beliefs, {"kind": TARGETS, **sizes, "computed": computed}, y=y)


def _samples(named: dict[str, Tensor]) -> Predictions:
    y = _column(named["y"].double())
    samples = named["samples"].double()
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.ndim != 3 or samples.shape[1:] != y.shape:
        raise ValueError(f"samples: wants shape (sample, row, target) to match y, got {tuple(named['samples'].shape)}")
    for name, array in (("y", y), ("samples", samples)):
        _check_finite(name, array)
    receipt = {"kind": SAMPLES, "rows": len(y), "targets": y.shape[-1], "samples": len(samples), "computed": {}}
    return Predictions(None, receipt, samples=samples, y=y)


def _rows(
    named: dict[str, Tensor],
    own: dict[str, Tensor],
    kept: Tensor,
    computed: dict[str, str],
    *,
    scale: float | Tensor = 1.0,
) -> dict[str, Any]:
    """Uncertainties and other numbers a row: as given where they agree with what follows from the rest."""
    found: dict[str, Any] = {}
    for name, array in own.items():
        given = named.get(name)
        if given is None:
            found[name], computed[name] = array, "from the mixture and its members"
        else:
            found[name] = _by_row(name, given, kept).double()
            _check_near(name, found[name], array, scale)
    for name in ("log_density", "accepted"):
        if name in named:
            found[name] = _by_row(name, named[name], kept)
    if "accepted" in found:
        found["accepted"] = found["accepted"].bool()
    detectors = {name.removeprefix(DETECTOR): t for name, t in named.items() if name.startswith(DETECTOR)}
    found["detectors"] = {name: _by_row(name, t, kept) for name, t in detectors.items()}
    return found


def _by_row(name: str, array: Tensor, kept: Tensor) -> Tensor:
    if array.numel() != len(kept):
        raise ValueError(f"{name}: wants one number a row, {len(kept)}; got shape {tuple(array.shape)}")
    return array.reshape(-1)[kept]


def _labels(y: Tensor) -> Int[Tensor, "*batch"]:
    if y.is_floating_point():
        if not bool((y == y.round()).all()):
            raise ValueError("y: labels must be whole numbers, one a row; soft labels are not scored")
        return y.long()
    return y.long()


def _log_weights(named: dict[str, Tensor], members: Tensor) -> Float[Tensor, " member"]:
    """Normalised log weights; raises ValueError where there are not as many as members."""
    given = named.get("log_weights")
    if "weights" in named:
        if given is not None or not bool((named["weights"] > 0).all()):
            raise ValueError("weights: wants numbers above 0, and not log_weights too")
        given = named["weights"].double().log()
    return normalised(None if given is None else given.double().reshape(-1), members)


def _column(y: Tensor) -> Float[Tensor, "row target"]:
    if y.ndim not in (1, 2):
        raise ValueError(f"y: wants shape (row,) or (row, target), got {tuple(y.shape)}")
    return y[:, None] if y.ndim == 1 else y


def _per_member(name: str, array: Tensor, y: Float[Tensor, "row target"]) -> Float[Tensor, "member row target"]:
    num, targets = y.shape
    for shape in ((num, targets), (num,) if targets == 1 else None):
        if (
            shape is not None
            and tuple(array.shape[-len(shape) :]) == shape
            and array.ndim in (len(shape), len(shape) + 1)
        ):
            return array.reshape(-1, num, targets)
    raise ValueError(
        f"{name}: wants shape (row, target), or with a leading member axis, to match y {(num, targets)}; "
        f"got {tuple(array.shape)}"
    )


def _checked(beliefs: ClassBeliefs, labelled: bool) -> dict[str, Any]:
    """How far the worst row is from summing to one, and how many labels have no probability (their NLL is infinite)."""
    off = float((torch.logsumexp(beliefs.log_probs.double(), dim=-1).exp() - 1).abs().amax())
    found: dict[str, Any] = {"worst_sum_is_off_by": off}
    if labelled:
        of_label = beliefs.log_probs[torch.arange(len(beliefs)), beliefs.y.long()]
        found["labels_of_probability_zero"] = int(of_label.isinf().sum())
    return found


def _check_finite(name: str, array: Tensor) -> None:
    if not bool(array.isfinite().all()):
        raise ValueError(f"{name}: {int((~array.isfinite()).sum())} of {array.numel()} values are not finite")


def _check_variances(variances: Tensor) -> None:
    _check_finite("variances", variances)
    if not bool((variances > 0).all()):
        raise ValueError(f"variances: wants numbers above 0, the smallest is {float(variances.amin()):.3g}")


def _check_near(name: str, given: Tensor, own: Tensor, scale: float | Tensor = 1.0) -> None:
    """Entropies to 0.02 nats, variances to 2 % of the whole variance: half precision passes, other units do not."""
    off = (given.double() - own.double()).abs()
    if bool((off > UNCERTAINTY_TOLERANCE * scale).any()):
        raise ValueError(
            f"{name}: differs by up to {float(off.amax()):.3g} from what follows from the predictions; "
            "entropies are in nats, variances in squared target units"
        )
