"""Priors under covariate shift: where training inputs do not vary, a Gaussian prior makes the posterior noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from levelhead.backbones.mlp import MLP
from levelhead.catalogue import parts
from levelhead.evaluations.shift import CORRUPTIONS
from levelhead.likelihood import Categorical
from levelhead.objectives.emp_cov_prior import EmpCovPrior
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.predictor import Predictor, WeightSamples
from levelhead.priors.exposure import null_space_exposure
from levelhead.recipe import DeepEnsemble, Fit, Recipe, fit_part
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.hmc import HMC
from levelhead.tasks.carve import carve
from levelhead.tasks.digits import digits
from levelhead.tasks.fashion_mini import fashion_mini
from levelhead.tasks.mnist import mnist_sets
from levelhead.tasks.split import Split, as_float
from levelhead.tasks.task import Task
from levelhead.training import Runtime
from levelhead.values import digest
from reproductions.harness import Options, Section, number

SCALE = 0.3
GAUSSIAN = GaussianPrior(SCALE)
EMPCOV = EmpCovPrior(eps=1e-4 * SCALE**2, scale=SCALE)
PRODUCT = replace(EMPCOV, alpha=SCALE**2, also_independent=True)  # the reference code's form
NOISES = 10  # draws of test noise that an accuracy is the mean of
SEVERITIES = (1, 3, 5)
ROWS = 1000  # of the training and of the test split in the corrupted tasks
MAP, MAP_EMPCOV, ENSEMBLE = "MAP, Gaussian prior", "MAP, EmpCov", "ensemble of 5 MAP"
HMC_GAUSSIAN, HMC_EMPCOV, HMC_PRODUCT = "HMC, Gaussian prior", "HMC, EmpCov", "HMC, EmpCov x Gaussian"
PRIORS = {MAP_EMPCOV: EMPCOV, HMC_EMPCOV: EMPCOV, HMC_PRODUCT: PRODUCT}


@dataclass(frozen=True)
class Setting:
    """A task, its network, and how long its chains are."""

    task: Task
    hidden: tuple[int, ...]
    leapfrogs: int
    epochs: int  # of Adam
    draws: int = 100

    def recipes(self) -> dict[str, Fit]:
        """What is compared: the same network and priors, as points and as posteriors."""
        adam = AdamW(epochs=self.epochs, batch_size=100, lr=3e-3, weight_decay=0.0)
        hmc = HMC(epochs=self.leapfrogs, chains=1, prior_scale=None, num_draws=self.draws)
        point = self.recipe(GAUSSIAN, adam)
        return {
            MAP: point,
            MAP_EMPCOV: self.recipe(EMPCOV, adam),
            ENSEMBLE: DeepEnsemble(member=point, size=5),
            HMC_GAUSSIAN: self.recipe(GAUSSIAN, hmc),
            HMC_EMPCOV: self.recipe(EMPCOV, hmc),
            HMC_PRODUCT: self.recipe(PRODUCT, hmc),
        }

    def recipe(self, prior: Any, sampler: Any) -> Recipe:
        """One network under a prior."""
        return Recipe(backbone=MLP(hidden=self.hidden), regularisers=(prior,), sampler=sampler)


Numbers = dict[str, dict[str, list[float]]]  # by predictor and column, one a seed


def run(options: Options) -> list[Section]:
    """Dead pixels, linear dependence, corruptions on two data sets, and who keeps how much of the prior."""
    leapfrogs = 60 if options.quick else 4000
    sections = [dead_pixels(options, leapfrogs), dependent_features(options, leapfrogs)]
    for task in (small_mnist(options), small_fashion()):
        sections += corrupted(options, task, 30 if options.quick else 4000)
    return sections


def measured(
    options: Options,
    setting: Callable[[int], Setting],
    measure: Callable[[Predictor, Setting, Any], Mapping[str, float]],
) -> Numbers:
    """Fit everything for every seed and measure it."""
    found: Numbers = {}
    for seed in range(options.seeds):
        given = setting(seed)
        for name, recipe in given.recipes().items():
            place = options.root / "empcov" / given.task.digest / digest(recipe) / str(seed)
            predictor = fit_part(recipe, given.task, seed, Runtime(folder=place))  # a killed run goes on
            prior = PRIORS.get(name, GAUSSIAN)
            for column, value in {**measure(predictor, given, prior), **health(predictor)}.items():
                found.setdefault(name, {}).setdefault(column, []).append(value)
    return found


def health(predictor: Predictor) -> dict[str, float]:
    """What chains say about themselves."""
    if not isinstance(predictor, WeightSamples):
        return {}
    known = predictor.diagnostics
    return {name: known[name] for name in ("acceptance", "rhat_median", "ess_median") if name in known}


def table(found: Numbers, columns: Mapping[str, int]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; columns with their digits."""
    rows = [
        [name, *(number(values[c], digits) if c in values else "" for c, digits in columns.items())]
        for name, values in found.items()
    ]
    return ["predictor", *columns], rows


@torch.no_grad()
def accuracy(predictor: Predictor, x: Tensor, y: Tensor) -> float:
    """In percent."""
    return 100 * float((predictor(x).probs.argmax(-1) == y).double().mean())


def noisy(predictor: Predictor, task: Task, noise: Callable[[Tensor], Tensor]) -> float:
    """Mean accuracy over draws of noise on the test rows."""
    x, values = as_float(task.test.x), []
    for draw in range(NOISES):
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(draw))
        values.append(accuracy(predictor, x + noise(drawn), task.test.y))
    return sum(values) / len(values)


# -- dead pixels ---------------------------------------------------------------------------------------------------


def dead_pixels(options: Options, leapfrogs: int) -> Section:
    """Digits with an empty border; noise on the border alone must not matter."""
    epochs = options.epochs(200)
    found = measured(options, lambda seed: Setting(padded_digits(seed), (20,), leapfrogs, epochs), on_dead_pixels)
    columns = {"clean %": 1, "noise on dead pixels %": 1, "on all pixels %": 1, "std of dead weights": 4}
    header, rows = table(found, {**columns, "acceptance": 2, "rhat_median": 2})
    note = (
        "400 digits of 8 x 8 with an empty border, 10 x 10, of which some 43 pixels are 0 in every training image; "
        "100-20-10, prior deviation 0.3. Noise of 3 standard deviations of all pixels, not clipped; on all pixels of 1."
    )
    return Section("Dead pixels: noise where training never had any", header, rows, note)


def padded_digits(seed: int) -> Task:
    """400 training digits with a border of zeros."""
    task = digits(seed=seed)

    def padded(split: Split) -> Split:
        return Split(split.name, F.pad(split.x, (1, 1, 1, 1)), split.y)

    splits = [padded(split) for split in (task.train.take(400), task.val, task.calibration, task.test)]
    return Task("padded-digits", *splits, task.likelihood)


def on_dead_pixels(predictor: Predictor, setting: Setting, prior: Any) -> dict[str, float]:
    """Accuracy clean, under noise on dead pixels and on all; deviation of the weights of dead pixels over draws."""
    task = setting.task
    dead = (task.train.x == task.train.x[:1]).all(0)
    size = task.signature.std[0]
    found = {
        "clean %": accuracy(predictor, as_float(task.test.x), task.test.y),
        "noise on dead pixels %": noisy(predictor, task, lambda noise: 3 * size * noise * dead),
        "on all pixels %": noisy(predictor, task, lambda noise: size * noise),
    }
    if isinstance(predictor, WeightSamples):
        weights = predictor.draws["features.hidden1.linear.weight"][..., dead.flatten()]
        found["std of dead weights"] = float(weights.std())
    return found


# -- linear dependence ---------------------------------------------------------------------------------------------


def dependent_features(options: Options, leapfrogs: int) -> Section:
    """Every feature twice, with opposite signs; at test one copy is shifted alone."""
    epochs = options.epochs(200)
    found = measured(options, lambda seed: Setting(mirrored_digits(seed), (20,), leapfrogs, epochs), on_one_copy)
    columns = {"clean %": 1, "one copy %": 1, "its part outside %": 1, "its part inside %": 1}
    header, rows = table(found, {**columns, "acceptance": 2, "rhat_median": 2})
    note = (
        "400 digits as features x and -x, one a live pixel. Noise n of 2 deviations on the second copy alone is "
        "(n/2, n/2), outside of what training inputs span, and (-n/2, n/2), inside."
    )
    return Section("Linear dependence: x and -x, one copy shifted", header, rows, note)


def mirrored_digits(seed: int) -> Task:
    """Pixels and their negatives as a table; pixels that never vary are dropped."""
    task = digits(seed=seed)
    train = task.train.take(400)
    live = (train.x != train.x[:1]).any(0)

    def mirrored(split: Split) -> Split:
        x = split.x[:, live] / 16
        return Split(split.name, torch.cat([x, -x], 1), split.y)

    return Task("mirrored", *(mirrored(s) for s in (train, task.val, task.calibration, task.test)), task.likelihood)


def on_one_copy(predictor: Predictor, setting: Setting, prior: Any) -> dict[str, float]:
    """Accuracy clean, with noise on the second copy alone, and with the two parts of that noise, one at a time."""
    task = setting.task
    size = 2 * torch.tensor(task.signature.std)
    half = len(size) // 2

    def copies(first: float, second: float) -> Callable[[Tensor], Tensor]:
        def noise(drawn: Tensor) -> Tensor:
            scaled = (size * drawn)[:, :half]
            return torch.cat([first * scaled, second * scaled], 1)

        return noise

    return {
        "clean %": accuracy(predictor, task.test.x, task.test.y),
        "one copy %": noisy(predictor, task, copies(0, 1)),
        "its part outside %": noisy(predictor, task, copies(0.5, 0.5)),
        "its part inside %": noisy(predictor, task, copies(-0.5, 0.5)),
    }


# -- corruptions ---------------------------------------------------------------------------------------------------


def small_mnist(options: Options) -> Task:
    """1,000 training digits and 1,000 test digits out of MNIST's test file."""
    pool = mnist_sets(options.data_dir)["mnist"].take(5000, name="all")
    sizes = {"train": ROWS, "val": 200, "calibration": 200, "test": ROWS}
    splits = carve(pool, sizes, seed=0, rest="unused")
    return Task("small-mnist", *(splits[name] for name in sizes), Categorical(10))


def small_fashion() -> Task:
    """1,000 training images and 1,000 test images of fashion-mini."""
    task = fashion_mini()
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))[:ROWS]
    rows = torch.randperm(len(task.test), generator=torch.Generator().manual_seed(0))[:ROWS]
    return Task(
        "small-fashion", task.train.take(order), task.val, task.calibration, task.test.take(rows), task.likelihood
    )


def corrupted(options: Options, task: Task, leapfrogs: int) -> list[Section]:
    """Accuracy by group of corruptions and by corruption, and what the first layer keeps of its prior."""
    sets = corruptions(task)

    def measure(predictor: Predictor, setting: Setting, prior: Any) -> dict[str, float]:
        return {**on_corruptions(predictor, task, sets), **profile(predictor, setting, prior)}

    found = measured(options, lambda seed: Setting(task, (50,), leapfrogs, options.epochs(100), 50), measure)
    groups = dict.fromkeys(("clean %", *(f"{group} %" for group in CORRUPTIONS), "all %"), 1)
    header, rows = table(found, {**groups, "NLL clean": 3, "NLL all": 3, "acceptance": 2, "rhat_median": 2})
    note = (
        f"{ROWS} training and {ROWS} test images, 784-50-10, prior deviation 0.3; {len(sets) // len(SEVERITIES)} "
        f"corruptions at severities {', '.join(map(str, SEVERITIES))}, groups as in the corruption benchmark."
    )
    sections = [Section(f"{task.name}: accuracy under corruption, by group", header, rows, note)]
    names = dict.fromkeys(name for name, _, _ in sets)
    columns = (MAP, ENSEMBLE, HMC_GAUSSIAN, HMC_EMPCOV, HMC_PRODUCT)
    rows = [[name, *(number(found[column][name], 1) for column in columns)] for name in names]
    for row, name in zip(rows, names, strict=True):
        row.append(number([a - b for a, b in zip(found[HMC_GAUSSIAN][name], found[MAP][name], strict=True)], 1))
        row.append(number([a - b for a, b in zip(found[HMC_EMPCOV][name], found[HMC_GAUSSIAN][name], strict=True)], 1))
    header = ["corruption", *columns, "HMC Gaussian - MAP", "EmpCov - Gaussian (HMC)"]
    sections.append(Section(f"{task.name}: accuracy by corruption, %, mean over severities", header, rows))
    chains = {name: found[name] for name in (HMC_GAUSSIAN, HMC_EMPCOV, HMC_PRODUCT)}
    header, rows = table(chains, {f"{what}, {band}": 3 for what in (SHARE, SPREAD) for band in BANDS})
    note = (
        "Share of the prior's variance that the posterior draws of the first layer keep, and their standard deviation, "
        "by principal direction of the training inputs; null: a variance below 1e-9 of the largest."
    )
    return [*sections, Section(f"{task.name}: exposure of the first layer", header, rows, note)]


def corruptions(task: Task) -> list[tuple[str, str, Tensor]]:
    """Name, group and corrupted test images, for every corruption that suits grey images and every severity."""
    found = []
    clean = as_float(task.test.x)
    for spec in (kind() for kind in parts("shifts") if kind().group in CORRUPTIONS):
        for severity in SEVERITIES:
            generator = torch.Generator().manual_seed(severity)
            name = type(spec).__module__.rpartition(".")[2]
            found.append((name, str(spec.group), spec(clean, severity, generator)))
    return found


@torch.no_grad()
def on_corruptions(predictor: Predictor, task: Task, sets: list[tuple[str, str, Tensor]]) -> dict[str, float]:
    """Accuracy in percent by group and by corruption, and log losses."""
    y = task.test.y
    clean = predictor(as_float(task.test.x))
    correct: dict[str, list[float]] = {}
    losses = []
    for name, group, x in sets:
        belief = predictor(x)
        share = 100 * float((belief.probs.argmax(-1) == y).double().mean())
        losses.append(-float(belief.log_prob(y).mean()))
        for key in (name, f"{group} %", "all %"):
            correct.setdefault(key, []).append(share)
    found = {key: sum(values) / len(values) for key, values in correct.items()}
    found["clean %"] = 100 * float((clean.probs.argmax(-1) == y).double().mean())
    return {**found, "NLL clean": -float(clean.log_prob(y).mean()), "NLL all": sum(losses) / len(losses)}


# -- exposure ------------------------------------------------------------------------------------------------------

BANDS = ("first 10", "11-100", "101-300", "301 on", "null")
SHARE, SPREAD = "share", "std of w.u"


def profile(predictor: Predictor, setting: Setting, prior: Any) -> dict[str, float]:
    """Of draws: the share of the prior's variance kept, and the deviation of w . u, by band of directions."""
    if not isinstance(predictor, WeightSamples) or predictor.num_draws < 2:
        return {}
    exposure = null_space_exposure(predictor, setting.task, prior)
    place, null = torch.arange(len(exposure.inputs)), exposure.inputs < 1e-9 * exposure.inputs[0]
    edges = ((0, 10), (10, 100), (100, 300), (300, len(place)))
    masks = [(place >= first) & (place < last) & ~null for first, last in edges] + [null]
    found = {}
    for band, mask in zip(BANDS, masks, strict=True):
        found[f"{SHARE}, {band}"] = float(exposure.retained[mask].mean())
        found[f"{SPREAD}, {band}"] = float(exposure.posterior[mask].mean().sqrt())
    return found
