"""Checks of a user's data: what would spoil a comparison before it starts."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.doctor._diagnosis import Findings, counted, listed
from levelhead.doctor._directions import constant, directions, named
from levelhead.likelihood import Categorical, Gaussian
from levelhead.tasks.split import Split
from levelhead.tasks.task import DISJOINT, Task

FEW_ROWS, FEW_A_CLASS = 100, 5  # of val and calibration: below, a chosen temperature or threshold is mostly noise
RARE = 0.1  # share of the largest class
FAR = 20.0  # interquartile ranges
HUGE = 1e4  # interquartile ranges: normalisation is a layer, but float32 has seven digits


def examine_data(task: Task, *, held: bool = False) -> Findings:
    """All checks of a task. `held`: the recipe has emp_cov_prior already."""
    found = Findings("data")
    found.note("splits", ", ".join(f"{name} {len(getattr(task, name)):,}" for name in DISJOINT))
    sizes(task, found)
    if isinstance(task.likelihood, Categorical):
        balance(task, task.likelihood, found)
    if isinstance(task.likelihood, Gaussian):
        targets(task, task.likelihood, found)
    overlaps(task, found)
    duplicates(task.train, found)
    inputs(task.train, found, task.columns)
    directions(task.train, found, task.columns, held=held)
    return found


def labels_of(split: Split, likelihood: Categorical) -> Tensor:
    """The labels that count, flat; soft labels by their most likely class."""
    y = split.y.argmax(-1) if split.y.is_floating_point() else split.y
    flat = y.flatten()
    return flat if likelihood.void is None else flat[flat != likelihood.void]


def sizes(task: Task, found: Findings) -> None:
    """Val and calibration are large enough to choose with."""
    for name, purpose in (("val", "choices"), ("calibration", "post-hoc steps")):
        split = getattr(task, name)
        count, why = len(split), ""
        if count < FEW_ROWS:
            why = f"{counted(count, 'row')}"
        elif isinstance(task.likelihood, Categorical):
            counts = torch.bincount(labels_of(split, task.likelihood), minlength=task.likelihood.num_classes)
            rare = int((counts < FEW_A_CLASS).sum())
            why = f"fewer than {FEW_A_CLASS} rows in {rare} of {len(counts)} classes" if rare else ""
        if why:
            found.warn(f"{name} size", f"{why}: {purpose} made on it are noisy", f"Move rows from train to {name}")
        else:
            found.note(f"{name} size", f"{count:,} rows for {purpose}")


def balance(task: Task, likelihood: Categorical, found: Findings) -> None:
    """Every class can be learned."""
    counts = torch.bincount(labels_of(task.train, likelihood), minlength=likelihood.num_classes)
    names = task.classes or tuple(map(str, range(likelihood.num_classes)))
    absent = [name for name, count in zip(names, counts.tolist(), strict=True) if count == 0]
    smallest, largest = int(counts.min()), int(counts.max())
    if absent:
        step = "Remove the class from the task, or give rows of it to train"
        found.fail("class balance", f"no training row of {listed(absent)}", step)
    elif smallest < RARE * largest:
        rare = [
            f"{name} ({count:,})" for name, count in zip(names, counts.tolist(), strict=True) if count < RARE * largest
        ]
        text = f"{listed(rare)} of at most {largest:,} a class: accuracy hides them"
        found.warn("class balance", text, "Read the per-class numbers, or balance train")
    else:
        found.note("class balance", f"{smallest:,} to {largest:,} rows in each of {likelihood.num_classes} classes")


def targets(task: Task, likelihood: Gaussian, found: Findings) -> None:
    """Targets vary, and the likelihood's standardisation is that of the data."""
    y = rearrange(task.train.y.double(), "... t -> (...) t")
    standard = (y - torch.tensor(likelihood.shift).to(y)) / torch.tensor(likelihood.scale).to(y)
    mean, std = standard.mean(0), standard.std(0)
    if bool((y.std(0) == 0).any()):
        found.fail("targets", "a target is constant in train", "Remove it: there is nothing to learn")
    elif bool((mean.abs() > 1).any()) or bool((std > 3).any()) or bool((std < 1 / 3).any()):
        found.warn(
            "targets",
            f"standardised by the likelihood they have mean {mean.tolist()} and deviation {std.tolist()}",
            "Give Gaussian(shift=train mean, scale=train deviation): learning rates expect 0 and 1",
        )
    else:
        found.note("targets", f"{y.shape[1]} real, standardised by the likelihood")


def overlaps(task: Task, found: Findings) -> None:
    """No row is in two splits; none has the inputs of another split's row either."""
    for pair, count in task.overlaps.items():
        first, second = pair.split("/")
        found.warn("overlaps", f"{count} rows of {second} are in {first} too", f"Remove them from {first}")
    seen = {name: content(getattr(task, name)) for name in DISJOINT}
    clashes = [f"{len(seen['train'].keys() & seen[name].keys())} of {name}" for name in DISJOINT[1:]]
    clashes = [text for text in clashes if not text.startswith("0 ")]
    if clashes and not task.overlaps:
        text = f"inputs of {listed(clashes)} are in train under another label"
        found.warn("overlaps", text, "One input cannot have two labels: look at these rows")
    elif not task.overlaps:
        found.note("overlaps", "no input of val, calibration or test is in train")


def duplicates(train: Split, found: Findings) -> None:
    """No input twice in train, and none with two labels."""
    rows = content(train)
    torn = sum(len(labels) > 1 for labels in rows.values())
    twice = len(train) - len(rows)
    if torn:
        found.warn("duplicates", f"{counted(torn, 'input')} of train with different labels", "Look at their labels")
    elif twice:
        text = f"{twice:,} of {len(train):,} training rows repeat another"
        found.warn("duplicates", text, "Harmless if intended; drop them where they are not")
    else:
        found.note("duplicates", f"{len(train):,} different training inputs")


def content(split: Split) -> dict[bytes, set[bytes]]:
    """The labels that every different input has, both as bytes."""
    found: dict[bytes, set[bytes]] = {}
    for x, y in zip(split.x.cpu(), split.y.cpu(), strict=True):
        found.setdefault(x.numpy().tobytes(), set()).add(y.numpy().tobytes())
    return found


def inputs(train: Split, found: Findings, names: Sequence[str]) -> None:
    """Inputs vary, lie where they should, and have no wild values."""
    x = train.x
    same = constant(x)
    if x.ndim == 4:
        if bool(same.all()):
            found.fail("inputs", "all training images are the same", "Look at how they were read")
            return
        top = float(x.max()) / (255 if x.dtype == torch.uint8 else 1)
        text = f"images of {tuple(x.shape[1:])}, brightest pixel {top:.3g}, {float(same.double().mean()):.0%} constant"
        if top < 0.1:
            step = "Pixels were divided by 255 twice, or stand for something else: give uint8, or floats in [0, 1]"
            found.fail("inputs", text, step)
        else:
            found.note("inputs", text)
        return
    columns(rearrange(x, "b ... -> b (...)").double(), same, found, names)


def columns(
    features: Float[Tensor, "row feature"], same: Bool[Tensor, " feature"], found: Findings, names: Sequence[str]
) -> None:
    """Columns of a table vary, in a range that float32 can tell apart, without values far from all others.

    Distances are measured in interquartile ranges, which a few wild values do not widen.
    """
    dead = named(same.nonzero().flatten(), names)
    if dead:
        found.warn("constant features", f"columns {listed(dead)} never change in train", "Drop them")
    live = features[:, ~same]
    if not live.numel():
        return
    low, middle, high = torch.quantile(live, torch.tensor([0.25, 0.5, 0.75]).to(live), dim=0)
    spread = torch.where(high > low, high - low, live.std(0))
    size, away = (live.abs().amax(0) / spread).max(), ((live - middle) / spread).abs().max()
    if float(away) > FAR:
        text = f"a value {float(away):.0f} interquartile ranges from its column's median"
        found.warn("input range", text, "Look for a missing-value code (-999), or take a logarithm")
    elif float(size) > HUGE:
        text = f"a column's values are {float(size):.0f} times as large as its interquartile range"
        found.warn("input range", text, "Centre the column, or change its unit: float32 has seven digits")
    else:
        text = f"{features.shape[1]} features, within {float(away):.1f} interquartile ranges of their medians"
        found.note("input range", text)
