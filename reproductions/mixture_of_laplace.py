"""Mixtures of Laplace: rotated Fashion-MNIST, digits far away, and what other weights than equal ones do."""

from typing import Any

import torch
from torch import Tensor

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.metrics.calibration import ece
from levelhead.metrics.classification import accuracy
from levelhead.metrics.ranking import auroc
from levelhead.passes import seeded
from levelhead.posthoc.laplace import Laplace
from levelhead.posthoc.mixture_weights import MixtureWeights
from levelhead.predictive import CategoricalMixture, concatenate
from levelhead.predictor import Ensemble, Predictor
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.sgd import SGD
from levelhead.shifts.rotation import Rotation
from levelhead.subnetworks.swag_variance import SWAGVariance
from levelhead.tasks.digits import digits
from levelhead.tasks.load import load_task
from levelhead.tasks.split import as_float
from levelhead.tasks.task import Task
from reproductions.harness import Options, Section, number, remembered

Numbers = dict[str, Any]
ANGLES = (0, 30, 60, 90, 120, 150, 180)
# accuracy / NLL / ECE / OOD AUROC (permuted pixels) / confidence on inputs times 20, of an earlier prototype of ours
SHEET_DIGITS = {
    "MAP": "0.941 / 0.280 / 0.034 / 0.868 / 0.99",
    "last-layer Laplace": "0.940 / 0.219 / 0.016 / 0.801 / 0.78",
    "deep ensemble": "0.943 / 0.232 / 0.028 / 0.932 / 0.74",
    "mixture of Laplace": "0.941 / 0.208 / 0.021 / 0.903 / 0.66",
    "mixture of Laplace, prior precision 1": "0.937 / 0.773 / 0.444 / 0.820 / 0.34",
}


def run(options: Options) -> list[Section]:
    """Rotated Fashion-MNIST and digits."""
    digits_section = small(options)
    return [*rotated(options), digits_section]


def posteriors(ensemble: Ensemble, task: Task, seed: int, subnetwork: Laplace | None) -> dict[str, Predictor]:
    """What is made of the members of one deep ensemble."""
    members = list(ensemble.children_predictors())
    sealed = task.sealed()

    def each(step: Laplace) -> Ensemble:
        return Ensemble([step(member, sealed) for member in members])

    tuned = each(Laplace(prior_precision="calibration"))
    by_evidence = each(Laplace())
    found: dict[str, Predictor] = {
        "MAP": members[0],
        "last-layer Laplace": next(iter(tuned.children_predictors())),
        "deep ensemble": ensemble,
        "mixture of Laplace": tuned,
        "mixture of Laplace, prior precision 1": each(Laplace(prior_precision=1.0)),
        "mixture of Laplace, prior by evidence": by_evidence,
        "the same, weights by evidence": MixtureWeights(by="evidence")(by_evidence, sealed),
        "mixture of Laplace, weights on calibration rows": MixtureWeights()(tuned, sealed),
    }
    if subnetwork is not None:
        with seeded(seed):
            found["subnetwork Laplace"] = subnetwork(members[0], sealed)
    return found


@torch.no_grad()
def beliefs(predictor: Predictor, x: Tensor) -> CategoricalMixture:
    """In batches."""
    found = concatenate([predictor(part) for part in x.split(250)])
    assert isinstance(found, CategoricalMixture), "labels"
    return found


def numbers_of(belief: CategoricalMixture, y: Tensor) -> Numbers:
    """NLL, accuracy, ECE and mean confidence."""
    return {
        "nll": -float(belief.log_prob(y).mean()),
        "accuracy": float(accuracy(belief.log_probs, y)),
        "ece": float(ece(belief.log_probs, y)),
        "confidence": float(belief.confidence.mean()),
    }


def rotated(options: Options) -> list[Section]:
    """LeNet-5 on 10,000 images of Fashion-MNIST, 1,000 test images turned."""
    runs = [
        remembered(
            options.root / "mixture_of_laplace" / f"rotated-10000-{seed}-{options.epochs(8)}.json",
            lambda s=seed: turned(options, s),
        )
        for seed in range(options.seeds)
    ]
    angles = [angle for angle in ANGLES if str(angle) in runs[0]["MAP"]]
    sections = []
    for metric, title, digits_after in (("nll", "NLL", 2), ("ece", "ECE", 3), ("accuracy", "accuracy", 3)):
        rows = [
            [name, *(number([run_[name][str(angle)][metric] for run_ in runs], digits_after) for angle in angles)]
            for name in runs[0]
        ]
        note = ""
        if metric == "nll":
            note = (
                "LeNet-5, 10,000 training images, 8 epochs of SGD; 1,000 test images; five members a seed, of which "
                "the first is MAP and carries the single posteriors. Prior precisions on 2,500 calibration images, "
                "unless a name says otherwise. The subnetwork: full covariance over the 1,000 weights (1.6 %) of "
                "largest SWAG variance. The paper shows figures without numbers; its LeNet sees 60,000 images."
            )
        sections.append(
            Section(f"Rotated Fashion-MNIST: {title} by angle", ["predictor", *map(str, angles)], rows, note)
        )
    return sections


def turned(options: Options, seed: int) -> Numbers:
    """Every predictor's numbers at every angle."""
    task = load_task("fashion-mnist", val=47_500, seed=seed, data_dir=options.data_dir)
    sampler = SGD(epochs=options.epochs(8), lr=0.05, batch_size=128)
    ensemble = DeepEnsemble(member=Recipe(backbone=LeNet(), sampler=sampler), size=2 if options.quick else 5)
    fitted = ensemble.fit(task, seed, rehearsed=True)
    assert isinstance(fitted, Ensemble)
    path = SGD(epochs=options.epochs(15), lr=0.01, weight_decay=3e-4, batch_size=256, schedule="constant")
    rule = SWAGVariance(k=1000, path=path)
    subnetwork = Laplace(subset=rule, structure="full", prior_precision="calibration")
    test = task.test.take(200 if options.quick else 1000)
    found: Numbers = {}
    images = {angle: Rotation()(as_float(test.x), angle, torch.Generator()) for angle in ANGLES}
    for name, predictor in posteriors(fitted, task, seed, subnetwork).items():
        found[name] = {str(angle): numbers_of(beliefs(predictor, x), test.y) for angle, x in images.items()}
        print(seed, name, found[name]["0"], flush=True)
    return found


def small(options: Options) -> Section:
    """Digits: calibration, permuted pixels, inputs far away."""
    runs = [
        remembered(
            options.root / "mixture_of_laplace" / f"digits-{seed}-{options.epochs(200)}.json",
            lambda s=seed: digit_numbers(options, s),
        )
        for seed in range(options.seeds)
    ]
    columns = ("accuracy", "nll", "ece", "auroc", "far")
    rows = [
        [name, *(number([run_[name][column] for run_ in runs]) for column in columns), SHEET_DIGITS.get(name, "")]
        for name in runs[0]
    ]
    return Section(
        "Digits, 300 training rows, five MLPs 64-32-32-10",
        ["predictor", "accuracy", "NLL", "ECE", "OOD AUROC", "confidence far away", "earlier prototype, same columns"],
        rows,
        "OOD: the test digits with their pixels permuted, by total uncertainty. Far away: test inputs times 20. Prior "
        "precisions on 400 calibration rows, unless a name says otherwise. The prototype is ours, at the same scale.",
    )


def digit_numbers(options: Options, seed: int) -> Numbers:
    """Every predictor's numbers."""
    task = digits(test=997, val=100, calibration=400, seed=seed)
    sampler = AdamW(epochs=options.epochs(200), lr=1e-3, batch_size=32, weight_decay=1e-3)
    fitted = DeepEnsemble(member=Recipe(backbone=MLP(hidden=(32, 32)), sampler=sampler), size=5).fit(
        task, seed, rehearsed=True
    )
    assert isinstance(fitted, Ensemble)
    x, y = as_float(task.test.x), task.test.y
    order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(seed))
    permuted = x.flatten(1)[:, order].reshape(x.shape)
    foreign = torch.arange(2 * len(x)) >= len(x)
    found: Numbers = {}
    for name, predictor in posteriors(fitted, task, seed, None).items():
        belief, strange = beliefs(predictor, x), beliefs(predictor, permuted)
        found[name] = numbers_of(belief, y) | {
            "auroc": float(auroc(torch.cat([belief.total(), strange.total()]), foreign)),
            "far": float(beliefs(predictor, 20 * x).confidence.mean()),
        }
    return found
