"""Out-of-distribution scores: all detectors on near and far sets, on one network, an ensemble and a bounded network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from levelhead import evaluation
from levelhead.evaluations.ood import OOD
from levelhead.measuring import Record
from levelhead.predictor import Ensemble, Predictor
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.tasks.load import load_task
from levelhead.tasks.split import unlabelled
from levelhead.tasks.task import Task
from reproductions.harness import Measured, Options, Section

HELD_OUT = (4, 7)  # coat and sneaker: each has two classes left that look like it
SETS = {
    "near-held-out": "near: held-out classes",
    "digits": "far: digits",
    "mnist": "far: MNIST",
    "noise": "far: noise",
}
ROWS = 2000  # of each far set, at most
NETWORK, ENSEMBLE, BOUNDED = "one network", "ensemble of 5", "one network, spectral norm"
DETECTORS = {  # by the name in metrics: published AUROC near / far, CIFAR-10, ResNet-18 (OpenOOD v1.5)
    "max_probability": "88.0 / 90.7",
    "entropy": "",
    "mutual_information": "",
    "max_logit": "87.5 / 91.1",
    "energy": "87.6 / 91.2",
    "react": "87.1 / 90.4",
    "odin": "82.9 / 88.0",
    "mahalanobis": "84.2 / 89.7",
    "relative_mahalanobis": "89.8 / 92.2",
    "feature_density": "",
    "knn": "90.6 / 93.0",
    "vim": "88.7 / 93.5",
}


def run(options: Options) -> list[Section]:
    """ResNet-8 of width 8 on Fashion-MNIST without two classes."""
    task = ood_task(options)
    found = measured(options, task)
    header = ["detector", *SETS.values(), "published, CIFAR-10: near / far"]
    sections = [
        Section(
            f"AUROC %, {kind}: ResNet-8 on fashion-mini without coat and sneaker, accuracy {accuracy(found, kind)} %",
            header,
            [[name, *cells(found, kind, "auroc", name), text] for name, text in DETECTORS.items()],
        )
        for kind in (NETWORK, ENSEMBLE)
    ]
    sections += [
        Section(
            f"FPR95 %, {kind}: share of test images flagged where 95 % of the outer ones are caught (`fpr95_out`)",
            header[:-1],
            [[name, *cells(found, kind, "fpr95_out", name)] for name in DETECTORS],
        )
        for kind in (NETWORK, ENSEMBLE)
    ]
    conventions = [
        [name, *cells(found, NETWORK, "fpr95_out", name)[:2], *cells(found, NETWORK, "fpr95_in", name)[:2]]
        for name in DETECTORS
    ]
    columns = [f"{convention}, {name}" for convention in ("out", "in") for name in list(SETS.values())[:2]]
    sections.append(Section("FPR95 % of one network under both conventions", ["detector", *columns], conventions))
    kept = ("max_probability", "energy", "mahalanobis", "relative_mahalanobis", "feature_density", "knn", "vim")
    sections.append(
        Section(
            f"AUROC %, {BOUNDED} (bound 3, as DDU trains), accuracy {accuracy(found, BOUNDED)} %",
            header[:-1],
            [[name, *cells(found, BOUNDED, "auroc", name)] for name in kept],
        )
    )
    return sections


def ood_task(options: Options) -> Task:
    """The task with its near set, and three far ones."""
    task = load_task("fashion-mini", holdout_classes=HELD_OUT, data_dir=options.data_dir)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (ROWS // 2, *task.train.x.shape[1:]), generator=generator, dtype=torch.uint8)
    outer = {name: split.take(min(ROWS, len(split))) for name, split in task.ood.items()}
    return dataclasses.replace(task, ood={**outer, "noise": unlabelled("noise", noise)})


def measured(options: Options, task: Task) -> Measured:
    """Every detector on every predictor: an ensemble's first member is the one network beside it."""
    sampler = f"sgd(epochs={options.epochs(10)}, lr=0.1)"
    lines = (f"{sampler} + deep_ensemble(size=5)", f"spectral_norm(norm_bound=3.0) + {sampler}")
    comparison = compare(
        task,
        lines,
        backbones="resnet(depth=8, width=8)",
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
    )
    if comparison.failures:
        raise SystemExit(f"{len(comparison.failures)} cells failed: {next(iter(comparison.failures.values()))}")
    rows: list[dict[str, Any]] = []
    for cell in comparison.cells:
        predictor = load(cell.folder / "predictor")
        for kind, part in named_parts(predictor):
            found = scored(part, task, cell.folder / "ood_scores" / kind.replace(" ", "_"))
            rows += [{**record._asdict(), "recipe": kind, "seed": cell.seed} for record in found]
    return Measured(pd.DataFrame(rows))


def scored(predictor: Predictor, task: Task, folder: Path) -> list[Record]:
    """The records; from the scores in the folder, where an earlier run left them all."""
    done = folder / "done"
    if not done.exists():
        evaluation.records(predictor, task, ("clean", OOD("all")), keep=folder)
        done.touch()
    return evaluation.rescore(folder, ("clean", "ood"))


def named_parts(predictor: Predictor) -> Sequence[tuple[str, Predictor]]:
    """What is measured of a predictor, and under which name."""
    if not isinstance(predictor, Ensemble):
        return ((BOUNDED, predictor),)
    return ((NETWORK, predictor.children_predictors()[0]), (ENSEMBLE, predictor))


def cells(found: Measured, kind: str, measure: str, name: str) -> list[str]:
    """One cell for each outer set."""
    metric = f"{measure}_{name}"
    return [found.cell(kind, metric, evaluation="ood", data=data, scale=100, digits=1) for data in SETS]


def accuracy(found: Measured, kind: str) -> str:
    """Mean and standard error, in per cent."""
    return found.cell(kind, "accuracy", scale=100, digits=1)
