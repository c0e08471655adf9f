"""Directions that training inputs never take: along them a posterior over weights is its prior, whatever the data."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from levelhead.doctor._diagnosis import Findings, listed
from levelhead.priors.inputs import Moments
from levelhead.tasks.split import Split, as_float

CHUNK = 1000  # rows looked at at once
MOST_ROWS, MOST_IMAGES = 10_000, 2_000  # for covariances of inputs, and of patches: evenly spaced over the split
MOST_INPUTS = 1024  # with more, a covariance takes more than seconds
PATCH = 3
NO_VARIANCE = 1e-8  # of a live input's own variance: beyond what float32 inputs can tell
INVOLVED = 1e-3  # share of a column in the directions without variance
ADVICE = (
    "Harmless in training, but under shift a posterior's average (HMC, SGLD, mean field, Laplace with drawn weights) "
    "meets weights that are still its prior: add emp_cov_prior. Points, deep ensembles, dropout and SWAG do not"
)
HELD = "Harmless in training; under shift a posterior's average needs emp_cov_prior, which this recipe has"


def directions(train: Split, found: Findings, names: Sequence[str] = (), *, held: bool = False) -> None:
    """How many inputs, directions of inputs and of patches never vary in train.

    names  of a table's columns. held  whether the recipe has emp_cov_prior already.
    """
    advice = HELD if held else ADVICE
    if train.x.ndim == 2:
        dependence(train, found, names, advice)
    elif train.x.ndim == 4:
        images(train, found, advice)


def dependence(train: Split, found: Findings, names: Sequence[str], advice: str) -> None:
    """No column of a table is a combination of the others. Columns that never change have a finding of their own."""
    live = (~constant(train.x)).nonzero().flatten()
    if not 1 < len(live) <= MOST_INPUTS:
        return
    count, share = without_variance(moments(train, live))
    if len(train) <= len(live):
        text = f"{len(train)} rows cannot span {len(live)} features: {count} directions are without variance"
        found.warn("directions", text, advice)
    elif count:
        involved = listed(named(live[share > INVOLVED], names))
        text = f"{count} of {len(live)} directions never vary: linear dependence among columns {involved}"
        found.warn("directions", text, f"Drop a column for each. {advice}")
    else:
        found.note("directions", f"train varies along all {len(live)} directions of its live features")


def images(train: Split, found: Findings, advice: str) -> None:
    """Dead pixels, directions of all pixels where they are few, and of patches, which convolutions see."""
    dead = constant(train.x)
    live = (~dead).nonzero().flatten()
    if not len(live):
        return
    words, nearly = [], ""
    if bool(dead.any()):
        words.append(f"{int(dead.sum())} of {len(dead)} pixels never change")
    if len(live) <= MOST_INPUTS:
        pixels = moments(train, live)
        count, _ = without_variance(pixels)
        little = with_little(pixels, len(train)) - count
        if little > 0:
            nearly = (
                f"; {little} of {len(live)} directions of pixels have less than 1/{len(train)} of a pixel's variance"
            )
        seen = min(len(train), MOST_ROWS)
        few = f", more than {seen} rows can span" if seen <= len(live) else ""
        if count:
            words.append(f"{count} of {len(live)} directions of the others{few}")
    patch, size = patches(train)
    if patch:
        words.append(f"{patch} of {size} directions of {PATCH} x {PATCH} patches")
    if words:
        found.warn("directions", f"without variance in train: {'; '.join(words)}{nearly}", advice)
    else:
        text = f"train varies in all {len(dead)} pixels and all {size} directions of patches{nearly}"
        found.note("directions", text)


def named(places: Shaped[Tensor, " column"], names: Sequence[str]) -> list[str]:
    """Columns by name, or by number from 0 where they have none."""
    return [names[place] if names else str(place) for place in places.tolist()]


def constant(x: Shaped[Tensor, "row *input"]) -> Bool[Tensor, " input"]:
    """Which inputs are the same in all rows."""
    first = rearrange(x[:1], "b ... -> b (...)")
    same = torch.ones(first.shape[1], dtype=torch.bool, device=x.device)
    for part in x.split(CHUNK):
        same &= (rearrange(part, "b ... -> b (...)") == first).all(0)
    return same


def moments(train: Split, live: Shaped[Tensor, " live"]) -> Moments:
    """Of the live inputs, over at most MOST_ROWS rows, a chunk at a time."""
    found = Moments()
    step = -(-len(train) // MOST_ROWS)
    for part in train.x[::step].split(CHUNK):
        found.add(rearrange(as_float(part), "b ... -> b (...)")[:, live])
    return found


def patches(train: Split) -> tuple[int, int]:
    """How many directions of patches never vary, inside at most MOST_IMAGES images; and how many there are."""
    found = Moments()
    step = -(-len(train) // MOST_IMAGES)
    kernel = (min(PATCH, train.x.shape[2]), min(PATCH, train.x.shape[3]))
    for part in train.x[::step].split(CHUNK // 10):
        found.add(rearrange(F.unfold(as_float(part), kernel), "b input place -> (b place) input"))
    return without_variance(found)[0], len(found.mean)


def with_little(moments: Moments, num_rows: int) -> int:
    """How many directions have less than 1 / num_rows of an input's mean variance, in one unit for all inputs.

    There all rows together say less of a weight than a prior with unit variance of pre-activations does: the posterior
    is near that prior.
    """
    covariance = moments.covariance
    return int((torch.linalg.eigvalsh(covariance) < covariance.diagonal().mean() / num_rows).sum())


def without_variance(moments: Moments) -> tuple[int, Float[Tensor, " input"]]:
    """How many directions have no variance, each input in units of its own; and the share of each input in them."""
    covariance = moments.covariance
    std = covariance.diagonal().clamp_min(0).sqrt()
    unit = torch.where(std > 0, std, torch.ones_like(std))
    variances, axes = torch.linalg.eigh(covariance / torch.outer(unit, unit))
    null = variances < NO_VARIANCE
    return int(null.sum()), axes[:, null].square().sum(1)
