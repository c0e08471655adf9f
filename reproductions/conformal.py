"""Conformal sets, intervals and selective prediction: promises kept in simulation, on clean images, and under shift."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.conformal.label_scores import aps_scores, lac_scores
from levelhead.conformal.ranks import rank, threshold, weighted_thresholds
from levelhead.evaluations.shift import Shift
from levelhead.metrics.prediction_sets import class_coverage_gap, set_coverage, set_size, size_stratified_violation
from levelhead.posthoc.aps import APS
from levelhead.posthoc.lac import LAC
from levelhead.posthoc.raps import RAPS
from levelhead.posthoc.selective import Selective
from levelhead.predictor import Predictor, predict
from levelhead.shifts.contrast import Contrast
from levelhead.shifts.defocus_blur import DefocusBlur
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.rotation import Rotation
from levelhead.tasks.load import load_task
from levelhead.tasks.split import Split, as_float, unlabelled
from levelhead.tasks.task import Task
from reproductions.calibration import recording, shifted_sets, small_fashion, trained
from reproductions.harness import Options, Section, number

ROWS, CLASSES, REPEATS, ALPHA = 500, 10, 200, 0.1
SHEET = {  # an independent implementation's numbers, on another simulated model: coverage, size
    "lac": ".899, 3.51",
    "aps(randomised=False)": ".903, 4.17",
    "aps": ".900, 3.72",
    "cqr": ".898",
}
STEPS: Mapping[str, Any] = {
    "lac": LAC(),
    "lac(per_class=True)": LAC(per_class=True),
    "aps": APS(),
    "aps(randomised=False)": APS(randomised=False),
    "raps": RAPS(),
}
SHIFTS = Shift((GaussianNoise(), DefocusBlur(), Contrast(), Rotation()), severities=(1, 3, 5), limit=1000)
TILT = 1.5  # of the covariate shift: how much likelier, per standard deviation of brightness, in log


def run(options: Options) -> list[Section]:
    """Simulation, images clean and corrupted, covariate shift with weights, and selective prediction."""
    task = small_fashion(options)
    predictors = trained(options, task)
    return [simulated(), *on_images(task, predictors), weighted(options, task, predictors)]


def simulated() -> Section:
    """Coverage over calibration sets, beside its law."""
    k = rank(ROWS, ALPHA)
    law = k / (ROWS + 1), math.sqrt(k * (ROWS + 1 - k) / (ROWS + 1) ** 2 / (ROWS + 2))
    scores: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "lac": lambda log_probs, u: lac_scores(log_probs),
        "aps(randomised=False)": lambda log_probs, u: aps_scores(log_probs, torch.zeros_like(u)),
        "aps": aps_scores,
        "raps": lambda log_probs, u: aps_scores(log_probs, u, slope=0.01, free_ranks=5),
    }
    rows = []
    for name, score in scores.items():
        found = torch.tensor([simulate(score, seed) for seed in range(REPEATS)])
        rows.append(simulation_row(name, found[:, 0], found[:, 1]))
    found = torch.tensor([simulate_intervals(seed) for seed in range(REPEATS)])
    rows.append(simulation_row("cqr", found[:, 0], found[:, 1]))
    return Section(
        f"Simulation: {REPEATS} calibration sets of {ROWS} rows, alpha {ALPHA}, coverage on 5,000 new rows each",
        ["step", "coverage, mean ± se", "its standard deviation", "set size, or width",
         "another implementation on another model: coverage, size"],
        rows,
        f"The law of coverage, Beta(k, n + 1 - k), has mean {law[0]:.4f} and standard deviation {law[1]:.4f}; 5,000 "
        f"new rows add {math.sqrt(ALPHA * (1 - ALPHA) / 5000):.4f} to it in quadrature. Classes: softmax of normal "
        "logits of scale 1.5, right for the labels, ten classes. Intervals: a Gaussian that is half as wide as its "
        "skewed targets.",
    )  # fmt: skip


def simulation_row(name: str, coverage: Tensor, size: Tensor) -> list[str]:
    """A row of the simulation's table."""
    error = float(coverage.std()) / REPEATS**0.5
    cells = [f"{float(coverage.mean()):.4f} ± {error:.4f}", f"{float(coverage.std()):.4f}", f"{float(size.mean()):.2f}"]
    return [f"`{name}`", *cells, SHEET.get(name, "")]


def simulate(score: Callable[[Tensor, Tensor], Tensor], seed: int) -> tuple[float, float]:
    """Coverage and size of one draw."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(ROWS + 5000, CLASSES, dtype=torch.float64, generator=generator)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator)
    strange = score(logits.log_softmax(-1), torch.rand(len(logits), dtype=torch.float64, generator=generator))
    sets = strange[ROWS:] <= threshold(strange[:ROWS].gather(-1, y[:ROWS])[:, 0], ALPHA)
    return float(set_coverage(sets, y[ROWS:, 0])), float(set_size(sets))


def simulate_intervals(seed: int) -> tuple[float, float]:
    """Coverage and width of one draw of conformalised quantiles."""
    generator = torch.Generator().manual_seed(seed)
    spread = 0.2 + torch.rand(ROWS + 5000, dtype=torch.float64, generator=generator)
    y = spread * -(torch.rand(len(spread), dtype=torch.float64, generator=generator).log() + 1)
    reach = 1.6449 * spread / 2
    q = threshold((y.abs() - reach)[:ROWS], ALPHA)
    inside = y[ROWS:].abs() <= reach[ROWS:] + q
    return float(inside.double().mean()), float(2 * (reach[ROWS:] + q).mean())


def on_images(task: Task, predictors: Sequence[Predictor]) -> list[Section]:
    """Sets and abstentions of deep ensembles of LeNets, clean and corrupted."""
    rows: dict[str, list[list[float]]] = {}
    selective: dict[str, list[list[float]]] = {}
    for predictor in predictors:
        heard = recording(predictor, task, {"test": task.test, **shifted_sets(SHIFTS, task)})
        for name, step in STEPS.items():
            fitted = step(heard.pooled, heard.task)
            clean, y = sets_of(fitted, heard.sets["test"]), heard.sets["test"].y
            values = [float(set_coverage(clean, y)), float(set_size(clean)), float(class_coverage_gap(clean, y))]
            values += [float(size_stratified_violation(clean, y, min_count=50))]
            for measure in (lambda sets, y: float(set_coverage(sets, y)), lambda sets, _: float(set_size(sets))):
                values += by_severity(heard.sets, lambda split, f=fitted, m=measure: m(sets_of(f, split), split.y))
            rows.setdefault(name, []).append(values)
        for name, step in {
            "selective(risk=0.05)": Selective(risk=0.05),
            "selective(risk=None, coverage=0.8)": Selective(risk=None, coverage=0.8),
        }.items():
            fitted = step(heard.pooled, heard.task)
            values = list(accepted_of(fitted, heard.sets["test"]))
            for place in (0, 1):
                values += by_severity(heard.sets, lambda split, f=fitted, p=place: accepted_of(f, split)[p])
            selective.setdefault(name, []).append(values)
    return [
        Section(
            "Prediction sets of a deep ensemble of 4 LeNets on Fashion-MNIST, alpha 0.1, 2,500 calibration rows",
            ["step", "coverage", "size", "class gap", "worst by size", "coverage, severity 1 / 3 / 5",
             "size, severity 1 / 3 / 5"],
            [[f"`{name}`", *cells(found, (3, 2, 3, 3))] for name, found in rows.items()],
            "Class gap: mean over classes of |coverage - 0.9|; worst by size: the same among sets of one size, the "
            "largest over sizes of at least 50 rows. Corruptions break exchangeability: nothing is promised there.",
        ),
        Section(
            "Selective prediction of the same ensemble",
            ["step", "risk of accepted rows", "accepted", "risk, severity 1 / 3 / 5", "accepted, severity 1 / 3 / 5"],
            [[f"`{name}`", *cells(found, (3, 3))] for name, found in selective.items()],
        ),
    ]  # fmt: skip


def weighted(options: Options, task: Task, predictors: Sequence[Predictor]) -> Section:
    """A covariate shift with overlap: brighter images are likelier; labels depend on images as before."""
    whole = load_task("fashion-mnist", data_dir=options.data_dir).test
    names = ("no weights", "weights estimated on features", "true weights")
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    mean, scale = brightness(task.calibration).mean(), brightness(task.calibration).std()
    for seed, predictor in enumerate(predictors):
        generator = torch.Generator().manual_seed(seed)
        test = tilted(whole.take(torch.arange(5000, 10000)), mean, scale, generator)
        new = tilted(task.val, mean, scale, generator)
        shifted = replace(task, test=test, unlabelled=unlabelled("new", new.x), known_overlaps=True)
        said = predict(predictor, test)
        before = sets_of(LAC()(predictor, task), test)
        after = sets_of(LAC(covariate_shift=True)(predictor, shifted), test)
        held = predict(predictor, task.calibration)
        strange = lac_scores(held.log_probs.double()).gather(-1, task.calibration.y[:, None])[:, 0]  # type: ignore[attr-defined]
        log_weights, at = (TILT * (brightness(split) - mean) / scale for split in (task.calibration, test))
        q = weighted_thresholds(strange, log_weights, at=at, alpha=ALPHA)
        truly = lac_scores(said.log_probs.double()) <= q[:, None]  # type: ignore[attr-defined]
        for name, sets in zip(names, (before, after, truly), strict=True):
            found[name].append([float(set_coverage(sets, test.y)), float(set_size(sets))])
    return Section(
        "Covariate shift: test images drawn with odds exp(1.5 brightness), brightness in standard deviations; LAC",
        ["weights of the calibration rows", "coverage", "size"],
        [[name, *cells(values, (3, 2))] for name, values in found.items()],
        "Estimated: logistic regression between the calibration images and 5,000 unlabelled ones, on the first "
        "network's features.",
    )


def brightness(split: Split) -> Float[Tensor, " row"]:
    """Mean pixel of each image, in [0, 1]."""
    return as_float(split.x).mean((1, 2, 3)).double()


def tilted(split: Split, mean: Tensor, scale: Tensor, generator: torch.Generator) -> Split:
    """As many rows, drawn with replacement with odds exp(TILT * standardised brightness)."""
    odds = (TILT * (brightness(split) - mean) / scale).softmax(0)
    return split.take(torch.multinomial(odds, len(split), replacement=True, generator=generator))


def sets_of(predictor: Predictor, split: Split) -> Bool[Tensor, "row class"]:
    """The sets of a split."""
    sets = predict(predictor, split).sets
    assert sets is not None
    return sets


def accepted_of(predictor: Predictor, split: Split) -> tuple[float, float]:
    """Error rate among accepted rows, and their share."""
    belief = predict(predictor, split)
    assert belief.accepted is not None
    wrong = belief.label != split.y  # type: ignore[attr-defined]
    return float(wrong[belief.accepted].double().mean()), float(belief.accepted.double().mean())


def by_severity(sets: Mapping[str, Split], measure: Callable[[Split], float]) -> list[float]:
    """Means over the shifts at severities 1, 3 and 5."""
    found = []
    for severity in ("1", "3", "5"):
        several = [measure(split) for name, split in sets.items() if name.endswith(f"-{severity}")]
        found.append(sum(several) / len(several))
    return found


def cells(found: Sequence[Sequence[float]], digits: Sequence[int]) -> list[str]:
    """Mean ± se over seeds of the first columns, then means of the others in threes."""
    columns = list(zip(*found, strict=True))
    text = [number(column, places) for column, places in zip(columns, digits, strict=False)]
    rest = [f"{sum(column) / len(column):.3f}" for column in columns[len(digits) :]]
    return text + [" / ".join(rest[start : start + 3]) for start in range(0, len(rest), 3)]
