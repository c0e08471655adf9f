"""Run folders made from a formula, in the layout of a study: quick, and with every case that a page must show."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from levelhead import scores
from levelhead.beliefs import ClassBeliefs, TargetBeliefs, write
from levelhead.detection import detection_scores
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.studies.store import Status, write_json, write_records, write_status

CLASSES = 10


@dataclass(frozen=True)
class Made:
    """A recipe that is not trained: how well its logits know the label, how sure it is, and what it costs."""

    text: str
    skill: float = 3.0
    sureness: float = 1.0
    cost: float = 1.0
    draws: int | None = None  # two recipes of the same draws and values say the same


PLAIN = Made("plain", skill=2.6, sureness=1.5)
THREE = (PLAIN, Made("mc_dropout", skill=2.7, sureness=1.1, cost=8), Made("deep_ensemble(size=4)", skill=3.1, cost=4))
ELEVEN = (
    *THREE,
    Made("temperature", skill=2.6, sureness=1.0),
    Made("vat", skill=2.8, sureness=1.2),
    Made("laplace", skill=2.62, sureness=0.9, cost=1.1),
    Made("swag", skill=2.75, sureness=1.05, cost=20),
    Made("batch_ensemble(num_members=4)", skill=2.85, sureness=1.3, cost=4.2),
    Made("spatial_smoothing", skill=2.7, sureness=1.4, cost=1.2),
    Made("spatial_smoothing + mc_dropout + temperature", skill=2.9, sureness=1.0, cost=9.6),
    Made("spatial_smoothing + vat + laplace + deep_ensemble(size=4) + temperature", skill=3.2, sureness=1.0, cost=5.5),
)
SHIFTS = ("brightness", "contrast", "defocus_blur", "gaussian_noise", "pixelate", "rotation", "shot_noise")


def classification(
    root: Path,
    recipes: tuple[Made, ...] = THREE,
    *,
    seeds: tuple[int, ...] = (0, 1),
    shifts: tuple[str, ...] = ("contrast", "gaussian_noise"),
    severities: tuple[int, ...] = (1, 3, 5),
    rows: int = 120,
    task: str = "made-up",
) -> Path:
    """Run folders of a classification study under `root`, which is returned."""
    for place, recipe in enumerate(recipes):
        for seed in seeds:
            folder = _cell(root, recipe, place, seed, task)
            generator = torch.Generator().manual_seed(1000 * (place if recipe.draws is None else recipe.draws) + seed)
            y = torch.arange(rows) % CLASSES
            found = _scored(folder, "test", "clean", "test", None, _beliefs(recipe, y, 0.0, generator))
            inside = _beliefs(recipe, y, 0.0, generator)
            for k, shift in enumerate(shifts):
                for severity in severities:
                    harm = severity * (0.25 + 0.15 * (k % 4))
                    beliefs = _beliefs(recipe, y, harm, generator)
                    found += _scored(folder, f"shift-{shift}-{severity}", "shift", shift, severity, beliefs)
            outside = _beliefs(recipe, torch.full((rows,), -1), 3.0, generator)
            write(outside, "ood-digits", folder)
            found += _rows("ood", "digits", None, detection_scores(inside, outside), 2 * rows)
            costs = {"parameters": 78_042.0 * recipe.cost, "multiply_adds": 12_390_000.0 * recipe.cost}
            found += _rows("cost", "test", None, costs, 100)
            found += _rows("cost", "train", None, {"train_seconds": 20.0 * recipe.cost + seed}, 6000)
            _finish(folder, recipe, place, seed, task, found)
    return root


def regression(root: Path, recipes: tuple[Made, ...] = THREE, *, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Run folders of a regression study under `root`, one published split a seed."""
    task = "uci/made-up"
    for place, recipe in enumerate(recipes):
        for seed in seeds:
            folder = _cell(root, recipe, place, seed, task)
            generator = torch.Generator().manual_seed(1000 * (place if recipe.draws is None else recipe.draws) + seed)
            y = torch.randn(80, 1, generator=generator)
            means = y + torch.randn(2, 80, 1, generator=generator) / recipe.skill
            variances = torch.full_like(means, (1 / recipe.skill / recipe.sureness) ** 2)
            beliefs = TargetBeliefs.of(GaussianMixture(means, variances), y)
            write(beliefs, "test", folder)
            found = _rows("clean", "test", None, scores.target_scores(beliefs), 80)
            found += _rows("cost", "train", None, {"train_seconds": 2.0 * recipe.cost}, 200)
            found += _rows("cost", "test", None, {"parameters": 401.0, "multiply_adds": 350.0 * recipe.cost}, 80)
            _finish(folder, recipe, place, seed, task, found)
    return root


def failed(root: Path, text: str, *, seed: int = 0, task: str = "made-up") -> Path:
    """A run that failed, under `root`."""
    recipe = Made(text)
    folder = _cell(root, recipe, 90, seed, task)
    error = "NonFiniteLoss: The loss <became> NaN"
    trace = f'Traceback (most recent call last):\n  File "training.py", line 1, in step\n{error}'
    write_status(folder, Status("failed", 1.5, error, trace))
    return folder


def _beliefs(recipe: Made, y: torch.Tensor, harm: float, generator: torch.Generator) -> ClassBeliefs:
    noise = torch.randn(2, len(y), CLASSES, generator=generator)
    hot = torch.nn.functional.one_hot(y.clamp_min(0), CLASSES) * (y >= 0)[:, None]
    knows = max(recipe.skill - 0.6 * harm, 0.2)
    logits = 0.7 * recipe.sureness * recipe.skill * (knows * hot + noise * (1 + 0.15 * harm))
    if (y < 0).all():
        logits = 0.7 * logits
    return ClassBeliefs.of(CategoricalMixture(logits), y)


def _cell(root: Path, recipe: Made, place: int, seed: int, task: str) -> Path:
    slug = "".join(sign if sign.isalnum() else "-" for sign in recipe.text)[:40]
    folder = root / task.replace("/", "-") / f"{slug}-{place:012x}" / str(seed)
    known = {"text": recipe.text, "canonical": f"resnet8 + {recipe.text}", "json": {}, "task": task, "options": {}}
    write_json(folder / "recipe.json", {**known, "backbone": "resnet8", "seed": seed, "digest": f"{place:012x}"})
    entries = {name: {"size": size, "digest": f"{size:012x}"} for name, size in (("train", 6000), ("test", 2000))}
    args = {"split": seed} if task.startswith("uci/") else {}
    receipt = {"name": task, "args": args, "splits": entries, "shifts": {}, "ood": {}, "overlaps": {}}
    versions = {"levelhead": "0.1.0", "python": "3.11.2", "packages": {"torch": "2.13.0", "numpy": "2.4.6"}}
    machine = {"system": "Linux x86_64", "device": "cpu (x86_64)", "threads": 1, "date": "2026-01-02T03:04:05Z"}
    write_json(folder / "environment.json", {**versions, **machine, "commit": "0123456789abcdef", "task": receipt})
    return folder


def _scored(
    folder: Path, key: str, evaluation: str, data: str, severity: int | None, beliefs: ClassBeliefs
) -> list[dict[str, object]]:
    write(beliefs, key, folder)
    return _rows(evaluation, data, severity, scores.class_scores(beliefs), len(beliefs))


def _rows(
    evaluation: str, data: str, severity: int | None, found: dict[str, float], rows: int
) -> list[dict[str, object]]:
    return [record._asdict() for record in scores.as_records(evaluation, data, severity, found, rows)]


def _finish(folder: Path, recipe: Made, place: int, seed: int, task: str, found: list[dict[str, object]]) -> None:
    whose = {"task": task, "recipe": recipe.text, "backbone": "resnet8", "digest": f"{place:012x}", "seed": seed}
    write_records(folder, [{**whose, **row} for row in found])
    write_status(folder, Status("done", 20.0 * recipe.cost, suites=("clean", "shift", "ood", "cost")))
    json.loads((folder / "status.json").read_text())
