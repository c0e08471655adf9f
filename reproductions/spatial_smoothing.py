"""Spatial smoothing: with it, MC dropout needs fewer passes, and one network is better calibrated and more robust."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead import evaluation
from levelhead.metrics.calibration import ece
from levelhead.metrics.classification import accuracy, nll
from levelhead.processes import each
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.studies.suites import suite_of
from levelhead.tasks.load import load_task
from reproductions.harness import Options, Section, number

# 10,000 of CIFAR-10's training images at their own size; fewer would be a rehearsal.
TASK = {"val": 37500, "calibration": 2500}
TESTED = 1000  # test images for the curves over passes
PASSES = (1, 2, 5, 10, 20, 50)
CORRUPTIONS = "gaussian_noise, shot_noise, defocus_blur, contrast, brightness, pixelate, jpeg_compression"
SHIFT = f"shift(shifts=({CORRUPTIONS}), severities=(3,), limit=500)"
EPOCHS = 14


@dataclass(frozen=True)
class Arm:
    """A network, how dropout gets into it, and what was published for it by the number of passes (0: deterministic):
    NLL and accuracy in %, without and with smoothing, on CIFAR-100."""

    title: str
    backbone: str
    surgery: str
    dropout: str
    published: Mapping[int, tuple[str, str]]


ARMS = (
    Arm(
        "VGG-11 of width 16, hidden layers of 256 and 256 in its head",
        "vgg(depth=11, width=16)",
        "mlp_head(hidden=(256, 256)) + ",
        "mc_dropout(p=0.3, num_samples=1, where='activations')",
        {0: ("2.05, 71.6", "1.88, 72.2"), 50: ("1.13, 68.8", "1.03, 71.4")},  # VGG-16
    ),
    Arm(
        "ResNet-8 of width 16",
        "resnet(depth=8, width=16)",
        "",
        "mc_dropout(p=0.3, num_samples=1, where='blocks')",
        {  # ResNet-18
            0: ("0.886, 77.9", "0.863, 79.0"),
            1: ("1.02, 75.0", "0.91, 77.3"),
            2: ("0.94, 76.2", "0.855, 78.2"),
            5: ("0.885, 76.9", "0.82, 78.65"),
            10: ("0.867, 77.0", "0.81, 78.9"),
            50: ("0.85, 77.35", "0.80, 79.0"),
        },
    ),
)


def run(options: Options) -> list[Section]:
    """Each network with and without smoothing, with dropout by the number of passes, and without dropout."""
    for kind in ("dropout", "plain"):  # what the claim is about first; what is finished is not done again
        for arm in ARMS:
            for line in recipes(arm, options)[kind]:
                fitted(arm, line, options)
    return [section for arm in ARMS for section in sections(arm, options)]


def recipes(arm: Arm, options: Options) -> dict[str, tuple[str, str]]:
    """The lines of an arm without and with smoothing."""
    sampler = f"sgd(epochs={options.epochs(EPOCHS)}, batch_size=64, lr=0.05, warmup_epochs=1.0, precision='bfloat16')"
    drawing = f"{arm.dropout} + {sampler}"
    return {
        "dropout": (arm.surgery + drawing, f"{arm.surgery}spatial_smoothing + {drawing}"),
        "plain": (arm.surgery + sampler, f"{arm.surgery}spatial_smoothing + {sampler}"),
    }


def sections(arm: Arm, options: Options) -> Iterator[Section]:
    """The tables of one network."""
    lines = recipes(arm, options)
    drawn = [fitted(arm, line, options) for line in lines["dropout"]]
    plain = [fitted(arm, line, options) for line in lines["plain"]]
    y = load_task("cifar10", data_dir=str(options.data_dir), **TASK).test.y[:TESTED]
    rows = []
    for n in (0, *PASSES):
        for smooth, word in enumerate(("no", "yes")):
            cells = (drawn if n else plain)[smooth]
            scores = [by_groups(cell["drawn" if n else "off"], y, n or 1) for cell in cells]
            columns = [number(list(column), 3) for column in zip(*scores, strict=True)]
            rows.append(
                [f"dropout, {n} passes" if n else "no dropout", word, *columns, arm.published.get(n, ("", ""))[smooth]]
            )
    header = ["predictor", "smoothing", "NLL", "accuracy", "ECE", "published NLL, accuracy %"]
    note = (
        f"10,000 training images, {options.epochs(EPOCHS)} epochs, {TESTED:,} test images. Rows of n passes are means "
        "over the 50 / n disjoint groups of the same 50 passes. Published: CIFAR-100, 200 epochs, read off figures "
        "(VGG-16, ResNet-18)."
    )
    yield Section(f"CIFAR-10, {arm.title}", header, rows, note)
    yield needed(arm, drawn, y)
    yield others(arm, drawn, plain, y)


def needed(arm: Arm, drawn: Sequence[Sequence[Mapping[str, Tensor]]], y: Int[Tensor, " batch"]) -> Section:
    """How much NLL the passes beyond n still gain: the part of the claim that does not ask for a better network."""
    rows = []
    for smooth, word in enumerate(("no", "yes")):
        curves = [[by_groups(cell["drawn"], y, n)[0] for n in PASSES] for cell in drawn[smooth]]
        rows.append([word, *(number([curve[i] - curve[-1] for curve in curves]) for i in range(len(PASSES) - 1))])
    header = ["smoothing", *(f"{n} passes" for n in PASSES[:-1])]
    return Section(f"{arm.title}: NLL above that of 50 passes", header, rows)


def others(
    arm: Arm,
    drawn: Sequence[Sequence[Mapping[str, Tensor]]],
    plain: Sequence[Sequence[Mapping[str, Tensor]]],
    y: Int[Tensor, " batch"],
) -> Section:
    """Dropout switched off, ensembles of the seeds, and corrupted images."""
    rows = []
    for smooth, word in enumerate(("no", "yes")):
        off = [by_groups(cell["off"], y, 1) for cell in drawn[smooth]]
        alike = scores(torch.cat([cell["off"] for cell in plain[smooth]]), y)
        mixed = scores(torch.cat([cell["drawn"] for cell in drawn[smooth]]), y)
        rows.append(
            ["trained with dropout, predicting without", word, *(number(list(c)) for c in zip(*off, strict=True))]
        )
        rows.append([f"deep ensemble of the {len(plain[smooth])}", word, *(f"{value:.3f}" for value in alike)])
        rows.append([f"the {len(drawn[smooth])} with dropout, 50 passes each", word, *(f"{v:.3f}" for v in mixed)])
        for name, cells in (("no dropout", plain[smooth]), ("dropout, 5 passes", drawn[smooth])):
            columns = [
                number([float(value) for value in c]) for c in zip(*(cell["shifted"] for cell in cells), strict=True)
            ]
            rows.append([f"{name}, corrupted images", word, *columns])
    rows.sort(key=lambda row: row[0])
    header = ["predictor", "smoothing", "NLL", "accuracy", "ECE"]
    note = f"Corrupted: {CORRUPTIONS.replace('_', ' ')}, severity 3, 500 images each."
    return Section(f"{arm.title}: further", header, rows, note)


def fitted(arm: Arm, line: str, options: Options) -> list[dict[str, Tensor]]:
    """Per seed: log probabilities of 50 passes (where it draws) and of one without drawing; scores under shift."""
    found = compare(
        "cifar10",
        [line],
        backbones=arm.backbone,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
        data_dir=str(options.data_dir),
        **TASK,
    )
    if found.failures:
        raise SystemExit(f"failed: {dict(found.failures)}")
    kept = options.root / "spatial_smoothing"
    jobs = [(cell.folder, kept / "-".join(cell.folder.parts[-3:]), str(options.data_dir)) for cell in found.cells]
    return list(each(measured, jobs, workers=options.workers or 2))


def measured(folder: Path, kept: Path, data_dir: str) -> dict[str, Tensor]:
    """What one trained network predicts, kept in a file."""
    place = kept.with_suffix(".pt")
    if place.is_file():
        return torch.load(place)
    task = load_task("cifar10", data_dir=data_dir, **TASK)
    predictor = load(folder / "predictor")
    (network,) = predictor.networks()
    x = next(iter(task.test.ordered(TESTED))).x
    found = {}
    with torch.no_grad():
        batches = x.split(100)
        found["off"] = torch.cat([network(b) for b in batches], 1).log_softmax(-1)
        network.num_samples = 5 if network.stochastic else 1
        measured = evaluation.records(predictor, task, (suite_of(SHIFT),))
        if network.stochastic:
            torch.manual_seed(0)
            found["drawn"] = torch.cat([network(b, num_samples=max(PASSES)) for b in batches], 1).log_softmax(-1)
    means = [[r.value for r in measured if r.metric == metric] for metric in ("nll", "accuracy", "ece")]
    found["shifted"] = torch.tensor([sum(values) / len(values) for values in means])
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, place)
    return found


def by_groups(
    log_probs: Float[Tensor, "draw batch class"], y: Int[Tensor, " batch"], size: int
) -> tuple[float, float, float]:
    """NLL, accuracy and ECE of `size` passes: means over the disjoint groups of so many."""
    groups = rearrange(log_probs[: len(log_probs) // size * size], "(group draw) b c -> group draw b c", draw=size)
    found = torch.tensor([scores(group, y) for group in groups], dtype=torch.float64)
    return tuple(found.mean(0).tolist())


def scores(log_probs: Float[Tensor, "draw batch class"], y: Int[Tensor, " batch"]) -> tuple[float, float, float]:
    """NLL, accuracy and ECE (10 bins) of the mixture."""
    mixture = log_probs.logsumexp(0).log_softmax(-1)
    return float(nll(mixture, y)), float(accuracy(mixture, y)), float(ece(mixture, y, bins=10))
