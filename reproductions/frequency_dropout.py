"""Frequency dropout under domain shift: with the last filters, with none, with new statistics, with fresh filters."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from levelhead.likelihood import Categorical
from levelhead.network import build
from levelhead.posthoc.recalibrated_batch_norm import RecalibratedBatchNorm
from levelhead.predictor import Point, Predictor, predict
from levelhead.shifts.contrast import Contrast
from levelhead.shifts.defocus_blur import DefocusBlur
from levelhead.shifts.fog import Fog
from levelhead.shifts.frequency_noise import FrequencyNoise
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.jpeg_compression import JpegCompression
from levelhead.shifts.pixelate import Pixelate
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.surgeries.frequency_dropout import FrequencyDropout
from levelhead.tasks.carve import carve
from levelhead.tasks.embedded import embedded
from levelhead.tasks.images import resized
from levelhead.tasks.load import load_task
from levelhead.tasks.mnist import mnist_sets
from levelhead.tasks.split import Split, as_float
from levelhead.tasks.task import Task
from reproductions.harness import Options, Section, number, remembered

EPOCHS = 36
SEVERITY = 3
RINGS = (0.1, 0.3, 0.5, 0.7, 0.9)
CORRUPTIONS = (GaussianNoise(), DefocusBlur(), Fog(), Contrast(), Pixelate(), JpegCompression())
ARMS = {
    "plain": "",
    "CBS": "curriculum_by_smoothing(every=1) + ",
    "FD-GF": "frequency_dropout(filters=('gaussian',)) + ",
    "FD-RF": "frequency_dropout + ",
}
MODES = ("frozen", "identity", "identity + BN re-estimated", "5 draws, BN re-estimated")
ORDER = (("FD-RF", "FD-GF"), ("FD-GF", "CBS"), ("CBS", "plain"), ("FD-RF", "plain"))
Numbers = Mapping[str, Mapping[str, float]]  # rule of prediction -> set of images -> accuracy or NLL


def run(options: Options) -> list[Section]:
    """Pictures without augmentation, then digits of one source on those of another, then the claims."""
    pictures = measured(options, cifar(options), "resnet(depth=8)", EPOCHS, cifar_sets)
    there = measured(options, digits_task(options, "mnist"), "resnet(depth=8, width=8)", 10, digits_sets)
    back = measured(options, digits_task(options, "digits"), "resnet(depth=8, width=8)", 20, digits_sets)
    domains = {"MNIST to digits": there, "digits to MNIST": back}
    return [clean(pictures), rings(pictures), moved(domains), claims(pictures, domains), mismatch(pictures)]


def cifar(options: Options) -> Task:
    """2,500 training pictures, not augmented, as in the paper, and 2,000 test pictures."""
    whole = load_task("cifar10", data_dir=options.data_dir, augment=None)
    parts = {"train": 2500, "val": 200, "calibration": 200, "test": 2000}
    splits = {name: getattr(whole, name).take(rows) for name, rows in parts.items()}
    return dataclasses.replace(whole, name="cifar-2500", args={"of": "cifar10", **parts}, **splits)


def digits_task(options: Options, source: str) -> Task:
    """Digits of one source to learn, and of the other as the stored set `other`: both 28 x 28, of 20 x 20."""
    x, y = embedded("digits.npz", "x", "y")
    pools = {
        "mnist": mnist_sets(options.data_dir)["mnist"],
        "digits": Split("digits", F.pad(resized(x, 20), (4, 4, 4, 4)), y.long()),
    }
    sizes = {"val": 100, "calibration": 100, "test": 500}
    own = pools[source].take(torch.arange(min(2700, len(pools[source]))))
    splits = carve(own, sizes, seed=0)
    other = next(pool for name, pool in pools.items() if name != source)
    other = other.take(torch.arange(min(1500, len(other))))
    return Task(f"{source}-28", **splits, likelihood=Categorical(10), shifts={"other": other})


def cifar_sets(task: Task) -> dict[str, Split]:
    """The test pictures, and 500 of them with noise in a ring of frequencies, or corrupted."""
    clean_rows = task.test.take(500)
    shifts: dict[str, Any] = {f"ring {ring}": FrequencyNoise(frequency=ring) for ring in RINGS}
    shifts |= {type(shift).__name__: shift for shift in CORRUPTIONS}
    found = {"clean": task.test, "some": clean_rows}
    for name, shift in shifts.items():
        x = shift(as_float(clean_rows.x), SEVERITY, torch.Generator().manual_seed(0))
        found[name] = Split(name, x, clean_rows.y)
    return found


def digits_sets(task: Task) -> dict[str, Split]:
    """Test digits of the source that was learnt, and digits of the other."""
    other = task.shifts["other"]
    assert isinstance(other, Split)
    return {"clean": task.test, "other": other}


def measured(
    options: Options, task: Task, backbone: str, epochs: int, sets: Any
) -> dict[str, list[dict[str, Numbers]]]:
    """Of every arm and seed, accuracy and NLL under each rule of prediction; each is trained once."""
    sampler = f"sgd(epochs={options.epochs(epochs)}, lr=0.1, batch_size=64)"
    recipes = {arm: f"{surgery}{sampler}" for arm, surgery in ARMS.items()}
    comparison = compare(
        task,
        list(recipes.values()),
        backbones=backbone,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
    )
    if comparison.failures:
        raise SystemExit(f"cells failed: {dict(comparison.failures)}")
    rows = cache(lambda: sets(task))
    torch.set_num_threads(options.workers or 2)  # nothing else runs by now
    found: dict[str, list[dict[str, Numbers]]] = {arm: [] for arm in ARMS}
    arms = {recipe: arm for arm, recipe in recipes.items()}
    for cell in comparison.cells:
        place = options.root / "frequency_dropout" / f"{'-'.join(cell.folder.relative_to(options.root).parts)}.json"
        numbers = remembered(place, lambda cell=cell: judged(load(cell.folder / "predictor"), task, rows()))
        found[arms[cell.name]].append(numbers)
    return found


def judged(predictor: Predictor, task: Task, sets: Mapping[str, Split]) -> dict[str, Numbers]:
    """Accuracy and NLL on every set under each rule that suits the network."""
    assert isinstance(predictor, Point)
    found: dict[str, dict[str, dict[str, float]]] = {"accuracy": {}, "nll": {}}
    for rule, each in rules(predictor, task):
        beliefs = {name: (predict(each, split, batch_size=100), split.y) for name, split in sets.items()}
        found["accuracy"][rule] = {n: float((b.label == y).double().mean()) for n, (b, y) in beliefs.items()}
        found["nll"][rule] = {n: -float(b.log_prob(y).double().mean()) for n, (b, y) in beliefs.items()}
    return found


def rules(point: Point, task: Task) -> Iterator[tuple[str, Predictor]]:
    """The same weights under each rule of prediction."""
    yield MODES[0], point
    origin = point.network.origin
    assert origin is not None
    if not any(isinstance(surgery, FrequencyDropout) for surgery in origin.surgery):
        return
    identity = under(point, eval_mode="identity")
    yield MODES[1], identity
    yield MODES[2], RecalibratedBatchNorm()(identity, task)
    yield MODES[3], RecalibratedBatchNorm()(under(point, eval_mode="sample", num_samples=5), task)


def under(point: Point, **changes: Any) -> Point:
    """The network of a predictor with another rule, and its weights."""
    assert point.network.origin is not None
    backbone, surgery, signature = point.network.origin
    network = build(backbone, tuple(dataclasses.replace(part, **changes) for part in surgery), signature)
    kept = network.state_dict()
    network.load_state_dict({name: t for name, t in point.network.state_dict().items() if name in kept})
    return Point(network)


def seeds_of(found: list[dict[str, Numbers]], metric: str, rule: str, *sets: str) -> list[float]:
    """One number a seed: the mean over some sets, accuracy in per cent."""
    scale = 100 if metric == "accuracy" else 1
    return [scale * sum(one[metric][rule][name] for name in sets) / len(sets) for one in found]


def lines(found: dict[str, list[dict[str, Numbers]]]) -> Iterator[tuple[str, str, list[dict[str, Numbers]]]]:
    """Arms with the rules under which they were measured."""
    for arm, each in found.items():
        for rule in each[0]["accuracy"]:
            yield arm, rule if len(each[0]["accuracy"]) > 1 else "", each


def clean(found: dict[str, list[dict[str, Numbers]]]) -> Section:
    """Clean and corrupted pictures."""
    kinds = [type(shift).__name__ for shift in CORRUPTIONS]
    rows = [
        [
            arm,
            rule,
            number(seeds_of(each, "accuracy", rule or MODES[0], "clean"), 1),
            number(seeds_of(each, "nll", rule or MODES[0], "clean")),
            number(seeds_of(each, "accuracy", rule or MODES[0], *kinds), 1),
            number(seeds_of(each, "nll", rule or MODES[0], *kinds)),
            *(number(seeds_of(each, "accuracy", rule or MODES[0], kind), 1) for kind in kinds),
        ]
        for arm, rule, each in lines(found)
    ]
    title = (
        f"CIFAR-10, 2,500 images without augmentation, ResNet-8, {EPOCHS} epochs; corruptions of severity {SEVERITY}"
    )
    header = ["training", "prediction", "accuracy %", "NLL", "mean over corruptions %", "NLL", *kinds]
    note = (
        "CBS with sigma multiplied by 0.9 every epoch: the published schedule, every 5 of 300 epochs, in this length. "
        "No table of the paper was at hand to print beside these."
    )
    return Section(title, header, rows, note)


def rings(found: dict[str, list[dict[str, Numbers]]]) -> Section:
    """What noise in one band of frequencies costs."""
    rows = [
        [arm, rule, *(number(lost(each, rule or MODES[0], ring), 1) for ring in RINGS)]
        for arm, rule, each in lines(found)
    ]
    header = ["training", "prediction", *(f"f = {ring} pi" for ring in RINGS)]
    return Section(f"Accuracy lost, in points, to noise of severity {SEVERITY} in a ring of frequencies", header, rows)


def lost(each: list[dict[str, Numbers]], rule: str, *places: float) -> list[float]:
    """Points of accuracy that noise in some rings costs; one number a seed."""
    before = seeds_of(each, "accuracy", rule, "some")
    after = seeds_of(each, "accuracy", rule, *(f"ring {ring}" for ring in places))
    return [a - b for a, b in zip(before, after, strict=True)]


def moved(domains: dict[str, dict[str, list[dict[str, Numbers]]]]) -> Section:
    """Digits of one source, learnt from those of another."""
    names = [(arm, rule) for arm, rule, _ in lines(next(iter(domains.values())))]
    rows = []
    for arm, rule in names:
        row = [arm, rule]
        for found in domains.values():
            for name in ("clean", "other"):
                row.append(number(seeds_of(found[arm], "accuracy", rule or MODES[0], name), 1))
            row.append(number(seeds_of(found[arm], "nll", rule or MODES[0], "other")))
        rows.append(row)
    header = ["training", "prediction"]
    for domain in domains:
        source, target = domain.split(" to ")
        header += [f"{source} %", f"{source} to {target} %", "NLL there"]
    return Section("Digits of another source, ResNet-8 of width 8, 10 and 20 epochs", header, rows)


def claims(
    pictures: dict[str, list[dict[str, Numbers]]], domains: dict[str, dict[str, list[dict[str, Numbers]]]]
) -> Section:
    """The published order, pair by pair, with the filters of the last epoch and with none but new statistics."""
    kinds = [type(shift).__name__ for shift in CORRUPTIONS]
    places: list[tuple[str, dict[str, list[dict[str, Numbers]]], tuple[str, ...]]] = [
        ("clean pictures", pictures, ("clean",)),
        ("corrupted pictures", pictures, tuple(kinds)),
        ("noise in rings", pictures, tuple(f"ring {ring}" for ring in RINGS)),
        *((domain, found, ("other",)) for domain, found in domains.items()),
    ]
    rows = []
    for name, found, sets in places:
        for rule in (MODES[0], MODES[2]):
            row = [name, rule]
            for better, worse in ORDER:
                values = []
                for arm in (better, worse):
                    known = rule if rule in found[arm][0]["accuracy"] else MODES[0]
                    values.append(seeds_of(found[arm], "accuracy", known, *sets))
                gain = [a - b for a, b in zip(*values, strict=True)]
                mean = sum(gain) / len(gain)
                row.append(f"{number(gain, 1)} ({'yes' if mean > 0 else 'no'})")
            rows.append(row)
    header = ["where", "frequency dropout predicts with", *(f"{better} over {worse}" for better, worse in ORDER)]
    note = "Points of accuracy, paired by seed; yes: the mean has the published sign."
    return Section("The published order, FD-RF over FD-GF over CBS over plain", header, rows, note)


def mismatch(pictures: dict[str, list[dict[str, Numbers]]]) -> Section:
    """What prediction without filters costs, what new statistics give back, and what noise takes."""
    rows = []
    for arm in ("FD-GF", "FD-RF"):
        frozen, identity, renewed = (seeds_of(pictures[arm], "accuracy", rule, "clean") for rule in MODES[:3])
        costs = [a - b for a, b in zip(frozen, identity, strict=True)]
        back = [a - b for a, b in zip(renewed, identity, strict=True)]
        less = [
            a - b
            for a, b in zip(
                lost(pictures["plain"], MODES[0], *RINGS), lost(pictures[arm], MODES[0], *RINGS), strict=True
            )
        ]
        rows.append([arm, number(costs, 1), number(back, 1), number(less, 1)])
    header = ["training", "frozen over identity", "BN re-estimated over identity", "less lost to ring noise than plain"]
    return Section("Prediction without filters, on clean pictures, in points of accuracy", header, rows)
