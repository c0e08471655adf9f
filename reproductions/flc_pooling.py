"""FrequencyLowCut pooling: whether single-step adversarial training collapses by how the network steps over pixels."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from levelhead.adversarial.overfitting import collapse_epoch, detect_catastrophic_overfitting
from levelhead.studies.compare import Comparison, compare
from levelhead.tasks.load import load_task
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from reproductions.harness import Measured, Options, Section, number

TRAINED, TESTED = 10_000, 2_000
EPS = 16 / 255
BACKBONE = "resnet(depth=8, width=16, preact=True)"
NETWORKS = {"strided convolution": "", "BlurPool": "blur_pool + ", "FLC pooling": "flc_pooling + "}
EPOCHS, PLAIN_EPOCHS = 12, 12
PUBLISHED = {  # read off the figures and the abstract of arXiv 2204.00491, CIFAR-10, PreAct-ResNet-18, 8/255
    "strided convolution": "collapses",
    "BlurPool": "collapses",
    "FLC pooling": "does not collapse",
}


ALIASING = """Published, in another unit (a figure of the journal paper: one layer of a strided network, 200 epochs): 3
rising to 6 or 7 in healthy training by single steps, a jump to about 10 where it collapses, 9 to 14 without attacks."""

Trained = dict[str, list[list[dict[str, float]]]]  # of each network, each seed and each epoch: a line of the log


def run(options: Options) -> list[Section]:
    """Training by single steps, epoch by epoch, and training without attacks."""
    trained, records = adversarial(options)
    plain = without_attacks(options)
    return [
        collapses(trained, records),
        by_epoch("PGD accuracy % by epoch", trained, "pgd_accuracy", 100, 1),
        by_epoch("Accuracy % on the single-step examples of training, by epoch", trained, "fgsm_accuracy", 100, 1),
        by_epoch("Relative aliasing by epoch", trained, "relative_aliasing", 1, 2, ALIASING),
        unattacked(plain),
    ]


def adversarial(options: Options) -> tuple[Trained, Measured]:
    """The logs of every network's seeds, and what was measured of them."""
    epochs = options.epochs(EPOCHS)
    attacks = f"(fgsm(eps={EPS}), pgd(eps={EPS}, steps=20))"
    watch = f"fgsm_training(eps={EPS}, alpha={EPS}, init='zero', guard='log', guard_rows=256) + aliasing_watch"
    sampler = (
        f"sgd(epochs={epochs}, lr=0.1, batch_size=64, warmup_epochs=1.0, schedule='constant', precision='bfloat16')"
    )
    lines = {name: f"{surgery}{watch} + {sampler}" for name, surgery in NETWORKS.items()}
    found = compared(options, lines, f"attack(attacks={attacks}, radii=(), limit=500, check=None)")
    logs = {name: [log(cell.folder) for cell in found.cells if cell.name == line] for name, line in lines.items()}
    return logs, named(found, lines)


def without_attacks(options: Options) -> Measured:
    """The same networks trained on clean images."""
    sampler = f"sgd(epochs={options.epochs(PLAIN_EPOCHS)}, lr=0.1, warmup_epochs=1.0, precision='bfloat16')"
    lines = {name: f"{surgery}aliasing_watch + {sampler}" for name, surgery in NETWORKS.items()}
    small, l2 = f"pgd(eps={1 / 255}, steps=10)", f"pgd(eps={32 / 255}, steps=10, norm='l2')"
    suites = f"attack(attacks=({l2}, {small}), radii=({8 / 255},), limit=500, check=None)"
    found = compared(options, lines, suites, "shift_consistency(max_shift=3)", "aliasing")
    return named(found, lines)


def compared(options: Options, lines: dict[str, str], *suites: str) -> Comparison:
    """A study of these recipes."""
    found = compare(
        pictures(options.data_dir),
        list(lines.values()),
        backbones=BACKBONE,
        seeds=options.seeds,
        suites=("clean", *suites),
        root=options.root,
        workers=options.workers,
    )
    if found.failures:
        raise SystemExit(f"failed: {dict(found.failures)}")
    return found


def named(found: Comparison, lines: dict[str, str]) -> Measured:
    """Its records, under the networks' names."""
    records = found.records()
    return Measured(records.replace({"recipe": {line: name for name, line in lines.items()}}))


@cache
def pictures(data_dir: Path) -> Task:
    """CIFAR-10 at 16 x 16: the mean of four pixels each."""
    whole = load_task("cifar10", data_dir=data_dir)
    sizes = {"train": TRAINED, "val": TESTED, "calibration": TESTED, "test": TESTED}
    splits = {name: shrunk(getattr(whole, name).take(size)) for name, size in sizes.items()}
    return Task("cifar10-16", **splits, likelihood=whole.likelihood)


def shrunk(split: Split) -> Split:
    """Half as many pixels each way, still bytes."""
    return Split(split.name, F.avg_pool2d(split.x.float(), 2).round().to(torch.uint8), split.y)


def log(folder: Path) -> list[dict[str, float]]:
    """The lines of a fit's log, an epoch each."""
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def collapses(trained: Trained, records: Measured) -> Section:
    """How many seeds collapsed, when, and what is left on test images."""
    rows = []
    for name, logs in trained.items():
        robust = [[line["pgd_accuracy"] for line in lines] for lines in logs]
        falls = [detect_catastrophic_overfitting(history) for history in robust]
        thirds = [collapsed(lines) for lines in logs]
        cells = [
            records.cell(name, "accuracy", evaluation="attack", data=data, scale=100, digits=1)
            for data in ("clean", "fgsm", "pgd")
        ]
        peak = number([100 * max(history) for history in robust], 1)
        rows.append([name, counted(falls), counted(thirds), peak, *cells, PUBLISHED[name]])
    header = [
        "downsampling",
        "a fall of 20 points between two epochs (at epoch)",
        "PGD below a third of its peak while single-step accuracy rose (at epoch)",
        "highest PGD %",
        "clean %, last epoch",
        "FGSM %",
        "PGD-20 %",
        "published",
    ]
    seeds = len(next(iter(trained.values())))
    note = (
        f"{seeds} seeds. {BACKBONE}, {TRAINED:,} CIFAR-10 images of 16 x 16 pixels, not augmented, batches of 64, "
        "learning rate 0.1. FGSM from the image itself with eps = alpha = 16/255: settings under which collapse is "
        "likely. Highest PGD: five steps on 256 training images, over epochs; the others, after the last epoch, on 500 "
        f"of {TESTED:,} test images."
    )
    return Section("Single-step adversarial training: seeds that collapsed", header, rows, note)


def counted(epochs: Sequence[int | None]) -> str:
    """How many of the seeds, and when."""
    found = [str(epoch + 1) for epoch in epochs if epoch is not None]
    return f"{len(found)} of {len(epochs)}" + (f" ({', '.join(found)})" if found else "")


def by_epoch(title: str, trained: Trained, key: str, scale: float, digits: int, note: str = "") -> Section:
    """One number of the log, epoch by epoch: seeds that collapsed alone, the mean of the others."""
    rows = []
    for name, logs in trained.items():
        values = [[scale * line[key] for line in lines] for lines in logs]
        fallen = {seed: epoch for seed, lines in enumerate(logs) if (epoch := collapsed(lines)) is not None}
        healthy = [history for seed, history in enumerate(values) if seed not in fallen]
        means = [f"{sum(column) / len(column):.{digits}f}" for column in zip(*healthy, strict=True)]
        rows += [[f"{name}, mean of the {len(healthy)} seeds that did not collapse", *means]] if healthy else []
        for seed in fallen:
            rows.append([f"{name}, seed {seed}, which did", *(f"{value:.{digits}f}" for value in values[seed])])
    length = min(len(lines) for logs in trained.values() for lines in logs)
    return Section(title, ["downsampling", *(str(epoch + 1) for epoch in range(length))], rows, note)


def collapsed(lines: Sequence[dict[str, float]]) -> int | None:
    """When, if at all."""
    return collapse_epoch([line["pgd_accuracy"] for line in lines], [line["fgsm_accuracy"] for line in lines])


def unattacked(found: Measured) -> Section:
    """Training without attacks."""
    rows = []
    for name in NETWORKS:
        attacked = [
            found.cell(name, "accuracy", evaluation="attack", data=data, severity=severity, scale=100, digits=1)
            for data, severity in (("pgd", None), ("pgd_l2", None), ("pgd_by_radius", 2))
        ]
        rows.append(
            [
                name,
                found.cell(name, "accuracy", scale=100, digits=1),
                found.cell(name, "nll"),
                *attacked,
                found.cell(name, "consistency", evaluation="shift_consistency", scale=100, digits=1),
                found.cell(name, "relative_aliasing", evaluation="aliasing", digits=2),
            ]
        )
    header = ["downsampling", "accuracy %", "NLL", "PGD 1/255 %", "PGD L2 32/255 %", "PGD 8/255 %"]
    header += ["same answer within 3 pixels %", "relative aliasing"]
    return Section("Trained without attacks, same images and network", header, rows)
