"""Calibration maps on held-out rows: clean and corrupted, one network, and both orders of pooling for an ensemble."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.evaluations.shift import Shift
from levelhead.metrics.calibration import classwise_ece, ece, noise_floor
from levelhead.metrics.classification import accuracy, nll
from levelhead.posthoc.beta import Beta
from levelhead.posthoc.dirichlet import Dirichlet
from levelhead.posthoc.ensemble_temperature import EnsembleTemperature
from levelhead.posthoc.histogram_binning import HistogramBinning
from levelhead.posthoc.isotonic import Isotonic
from levelhead.posthoc.matrix_scaling import MatrixScaling
from levelhead.posthoc.temperature import Temperature
from levelhead.posthoc.vector_scaling import VectorScaling
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.predictor import Ensemble, Predictor, predict
from levelhead.shifts.contrast import Contrast
from levelhead.shifts.defocus_blur import DefocusBlur
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.rotation import Rotation
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.tasks.load import load_task
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import Batch
from reproductions.harness import Options, Section, number

SIZE = 4
STEPS: Mapping[str, Any] = {
    "none": None,
    "temperature": Temperature(),
    "ensemble_temperature": EnsembleTemperature(),
    "vector_scaling(shared=True)": VectorScaling(shared=True),
    "vector_scaling": VectorScaling(),
    "matrix_scaling": MatrixScaling(),
    "dirichlet": Dirichlet(),
    "beta": Beta(),
    "isotonic": Isotonic(),
    'isotonic(target="top")': Isotonic(target="top"),
    "histogram_binning": HistogramBinning(),
}
SHIFTS = Shift((GaussianNoise(), DefocusBlur(), Contrast(), Rotation()), severities=(1, 3, 5), limit=1000)


class Recorded(Predictor):
    """What a predictor said about rows of several sets, under the number of the row: a pass for many steps."""

    def __init__(self, logits: Float[Tensor, "member row class"]) -> None:
        super().__init__()
        self.register_buffer("logits", logits)
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return CategoricalMixture(self.logits[:, x[:, 0].long()])  # type: ignore[index]

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()


class Recording(NamedTuple):
    """An ensemble's beliefs about several sets: its members, a task of row numbers, and the sets by name."""

    members: list[Recorded]
    task: Task
    sets: Mapping[str, Split]

    @property
    def pooled(self) -> Predictor:
        """The ensemble."""
        return Ensemble(self.members)


def small_fashion(options: Options) -> Task:
    """6,000 training images of Fashion-MNIST, 2,500 for calibration, and half of the test images."""
    whole = load_task("fashion-mnist", data_dir=options.data_dir)
    few = 500 if options.quick else 6000
    splits = {"train": whole.train.take(few), "val": whole.val, "calibration": whole.calibration}
    return Task("fashion-6000", **splits, test=whole.test.take(5000), likelihood=whole.likelihood)


def trained(options: Options, task: Task) -> list[Predictor]:
    """A deep ensemble of LeNets for each seed, from the store."""
    recipe = f"sgd(epochs={options.epochs(20)}, lr=0.05) + deep_ensemble(size={SIZE})"
    study = compare(
        task, [recipe], backbones="lenet", seeds=options.seeds, suites=("clean",), root=options.root,
        workers=options.workers,
    )  # fmt: skip
    if study.failures:
        raise SystemExit(f"a fit failed: {next(iter(study.failures.values()))}")
    return [load(cell.folder / "predictor") for cell in study.cells]


@dataclass(frozen=True)
class Gathered:
    """Batches that were made beforehand."""

    batches: list[Batch]

    def ordered(self, size: int) -> Iterator[Batch]:
        """All of them, as they are."""
        yield from self.batches


def shifted_sets(shift: Shift, task: Task) -> dict[str, Gathered]:
    """The shifted test rows by name and severity."""
    found: dict[str, list[Batch]] = {}
    for portion in shift.portions(task):
        for key, batch in portion.batches(500, torch.device("cpu")):
            found.setdefault(key, []).append(batch)
    return {key: Gathered(batches) for key, batches in found.items()}


@torch.no_grad()
def recording(predictor: Predictor, task: Task, sources: Mapping[str, Any]) -> Recording:
    """The members' beliefs about the calibration rows and about every source."""
    assert isinstance(predictor, Ensemble)
    logits, labels, bounds, start = [], [], {}, 0
    for name, source in {"calibration": task.calibration, **sources}.items():
        batches = list(source.ordered(500))
        logits.append(torch.cat([torch.cat([m(b.x).logits for m in predictor.members]) for b in batches], dim=1))
        labels.append(torch.cat([batch.y for batch in batches]))
        bounds[name] = slice(start, start + len(labels[-1]))
        start += len(labels[-1])
    rows, y, said = torch.arange(start)[:, None].float(), torch.cat(labels), torch.cat(logits, dim=1)
    sets = {name: Split(name, rows[place], y[place]) for name, place in bounds.items()}
    splits = {name: sets["calibration"].take(1, name=name) for name in ("train", "val", "test")}
    numbers = Task("recorded", **splits, calibration=sets["calibration"], likelihood=task.likelihood,
                   known_overlaps=True)  # fmt: skip
    return Recording([Recorded(member[None]) for member in said], numbers, sets)


def run(options: Options) -> list[Section]:
    """Accuracy, NLL and ECE, clean and by severity, for each map."""
    task = small_fashion(options)
    shifted = shifted_sets(SHIFTS, task)
    found: dict[tuple[str, str, str, str], list[float]] = {}
    floors = []
    for predictor in trained(options, task):
        heard = recording(predictor, task, {"test": task.test, **shifted})
        floors.append(floor_of(heard))
        for name, step in STEPS.items():
            for kind, calibrated in orders(heard, step):
                for data, values in measured(calibrated, heard.sets).items():
                    for metric, value in values.items():
                        found.setdefault((name, kind, data, metric), []).append(value)
    cell = partial(text, found)
    return [
        Section(
            "One LeNet, 6,000 training images of Fashion-MNIST, fitted on 2,500 rows",
            ["step", "accuracy %", "NLL", "ECE", "classwise ECE", "NLL, severity 1 / 3 / 5", "ECE, severity 1 / 3 / 5"],
            [
                [
                    f"`{name}`",
                    cell(name, "one", "clean", "accuracy", digits=1, scale=100.0),
                    *(cell(name, "one", "clean", metric) for metric in ("nll", "ece")),
                    cell(name, "one", "clean", "classwise", digits=4),
                    *(severities(found, name, "one", metric) for metric in ("nll", "ece")),
                ]
                for name in STEPS
            ],
            f"ECE with 15 bins; what it reads on as many rows of a perfectly calibrated network: {number(floors, 4)}. "
            "Corruptions: Gaussian noise, defocus blur, contrast and rotation on 1,000 images; means over the four.",
        ),
        *(
            Section(
                f"A deep ensemble of {SIZE}: pool, then calibrate, beside calibrate, then pool: {title}",
                ["step", "pool first, clean", "calibrate first, clean", "pool first, severity 1 / 3 / 5",
                 "calibrate first, severity 1 / 3 / 5"],
                [
                    [
                        f"`{name}`",
                        cell(name, "pool", "clean", metric),
                        cell(name, "each", "clean", metric),
                        severities(found, name, "pool", metric),
                        severities(found, name, "each", metric),
                    ]
                    for name in STEPS
                ],
            )
            for metric, title in (("ece", "ECE"), ("nll", "NLL"))
        ),
    ]  # fmt: skip


def orders(heard: Recording, step: Any) -> list[tuple[str, Predictor]]:
    """One network, the ensemble calibrated as a whole, and the ensemble of calibrated members."""
    fit: Callable[[Predictor], Predictor] = (lambda p: p) if step is None else (lambda p: step(p, heard.task))
    return [
        ("one", fit(heard.members[0])),
        ("pool", fit(heard.pooled)),
        ("each", Ensemble([fit(member) for member in heard.members])),
    ]


def measured(predictor: Predictor, sets: Mapping[str, Split]) -> dict[str, dict[str, float]]:
    """Accuracy, NLL and errors of calibration: clean, and means over shifts by severity."""
    by_data: dict[str, list[dict[str, float]]] = {}
    for name, split in sets.items():
        if name == "calibration":
            continue
        belief = predict(predictor, split)
        assert isinstance(belief, CategoricalMixture)
        values = {
            "accuracy": float(accuracy(belief.log_probs, split.y)),
            "nll": float(nll(belief.log_probs, split.y)),
            "ece": float(ece(belief.log_probs, split.y)),
            "classwise": float(classwise_ece(belief.log_probs, split.y)),
        }
        by_data.setdefault("clean" if name == "test" else name.rpartition("-")[2], []).append(values)
    return {
        data: {metric: sum(v[metric] for v in several) / len(several) for metric in several[0]}
        for data, several in by_data.items()
    }


def floor_of(heard: Recording) -> float:
    """What ECE reads where the first member's probabilities are exactly right."""
    belief = predict(heard.members[0], heard.sets["test"])
    assert isinstance(belief, CategoricalMixture)
    return float(noise_floor(ece, belief.log_probs, generator=torch.Generator().manual_seed(0)).mean)


def text(
    found: Mapping[tuple[str, str, str, str], list[float]], name: str, kind: str, data: str, metric: str,
    *, digits: int = 3, scale: float = 1.0,
) -> str:  # fmt: skip
    """Mean and standard error over seeds."""
    return number([scale * value for value in found[name, kind, data, metric]], digits)


def severities(found: Mapping[tuple[str, str, str, str], list[float]], name: str, kind: str, metric: str) -> str:
    """Means over seeds at severities 1, 3 and 5."""
    means = [found[name, kind, severity, metric] for severity in ("1", "3", "5")]
    return " / ".join(f"{sum(values) / len(values):.3f}" for values in means)
