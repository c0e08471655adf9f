"""Subnetwork Laplace: error bars by the size of the subnetwork and the rule that chose it; training by evidence."""

import math
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from levelhead.backbones.mlp import MLP
from levelhead.forward import network_loss
from levelhead.metrics.classification import accuracy
from levelhead.passes import seeded
from levelhead.posthoc.laplace import Laplace
from levelhead.predictor import Predictor, predict
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.marginal_likelihood import MarginalLikelihood
from levelhead.subnetworks.contribution import Contribution
from levelhead.subnetworks.laplace_variance import LaplaceVariance
from levelhead.subnetworks.magnitude import Magnitude
from levelhead.subnetworks.random import Random
from levelhead.subnetworks.swag_variance import SWAGVariance
from levelhead.tasks.cubic import cubic
from levelhead.tasks.digits import digits
from levelhead.tasks.load import load_task
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.tasks.uci_gap import NUM_SPLITS
from levelhead.training import Run
from reproductions.harness import Options, Section, number, remembered

Numbers = dict[str, Any]
RULES: dict[str, Callable[..., Any]] = {
    "SWAG variance": SWAGVariance,
    "contribution": Contribution,
    "magnitude": Magnitude,
    "random": Random,
    "diagonal-Laplace variance": LaplaceVariance,
}
UCI = ("yacht", "energy", "boston")
UCI_SIZES = (0.01, 0.05, 0.2, 0.5)
TOY_SIZES = (0.03, 0.1, 0.5)
DIGIT_SIZES = (0.01, 0.05, 0.2)
COST_SIZES = (1_000, 3_000, 10_000)
SHEET_TOY = {
    "diagonal-Laplace variance": (0.00, 0.05, 0.08),
    "SWAG variance": (0.33, 0.76, 0.94),
    "magnitude": (0.27, 0.68, 0.88),
    "random": (0.14, 0.27, 0.64),
    "contribution": (0.59, 0.82, 1.00),
}
SHEET_DIGITS = {
    "SWAG variance": (0.237, 0.239, 0.250),
    "random": (0.262, 0.269, 0.219),
    "contribution": (0.281, 0.278, 0.282),
    "diagonal-Laplace variance": (0.280, 0.280, 0.281),
}


def run(options: Options) -> list[Section]:
    """UCI gap splits, the toy with a gap, digits, training by evidence."""
    warnings.filterwarnings("ignore", message="LaplaceVariance")  # what it warns of is what is measured
    return [toy(options), classes(options), by_evidence(options), gaps(options), cost(options)]


def nll(predictor: Predictor, task: Task) -> float:
    """Of the test rows, in nats; targets in their own units."""
    return -float(predict(predictor, task.test).log_prob(task.test.y).mean())


def steps(sizes: tuple[float, ...], prior: str) -> Iterator[tuple[str, Laplace | None]]:
    """What is put on one trained network: nothing, whole structures, and subnetworks by rule and size."""
    yield "MAP", None
    yield "last layer", Laplace(subset="head", structure="full", prior_precision=prior)
    yield "all weights, diagonal", Laplace(subset="all", structure="diagonal", prior_precision=prior)
    yield "all weights, full", Laplace(subset="all", structure="full", prior_precision=prior)
    for name, rule in RULES.items():
        for size in sizes:
            yield f"{name}|{size}", Laplace(subset=rule(k=size), structure="full", prior_precision=prior)


def applied(step: Laplace | None, predictor: Predictor, task: Task, seed: int) -> Predictor:
    """The predictor after a step."""
    if step is None:
        return predictor
    with seeded(seed):
        return step(predictor, task.sealed())


def gaps(options: Options) -> Section:
    """Gap splits of three UCI sets."""
    names = UCI[:1] if options.quick else UCI
    found: dict[str, list[Numbers]] = {name: [] for name in names}
    for name in names:
        for split in range(2 if options.quick else NUM_SPLITS[name]):
            place = options.root / "subnetwork_laplace" / f"{name}-{split}-{options.epochs(200)}.json"
            found[name].append(remembered(place, lambda n=name, s=split: gap(options, n, s)))
            print(name, split, flush=True)
    rows = []
    for title in found[names[0]][0]:
        rule, _, size = title.partition("|")
        cells = []
        for name in names:
            values = [numbers[title]["nll"] for numbers in found[name]]
            against = [numbers[title]["nll"] - numbers["MAP"]["nll"] for numbers in found[name]]
            cells += [number(values, 2), f"{statistics.median(values):.2f}", number(against, 2)]
        share = f"{float(size):.0%}" if size else ""
        rows.append([rule, share, *cells])
    header = ["posterior over", "of the weights"]
    header += [text for name in names for text in (f"{name} NLL", "median", "less MAP")]
    return Section(
        "UCI gap splits: NLL of the middle third of a feature, full covariance over subnetworks",
        header,
        rows,
        f"Mean ± standard error over the gap splits ({', '.join(f'{n} {len(found[n])}' for n in names)}); differences "
        "are by split. An MLP with two hidden layers of 30 (ReLU), trained with "
        "`marginal_likelihood(noise='evidence')`; one network a split under all posteriors; prior precisions by "
        "marginal likelihood. The paper's figures have no table; it uses widths of 50 and 100, one noise for all rows, "
        "and tunes the prior on validation rows.",
    )


def gap(options: Options, name: str, split: int) -> Numbers:
    """NLL and RMSE of every posterior around one network."""
    task = load_task(f"uci-gap/{name}", split=split, data_dir=options.data_dir)
    inner = AdamW(epochs=options.epochs(200), lr=5e-3, batch_size=64, weight_decay=0.0)
    sampler = MarginalLikelihood(inner=inner, noise="evidence", scope="all", every=5, warmup_epochs=20)
    point = Recipe(backbone=MLP(hidden=(30, 30)), sampler=sampler).fit(task, split, rehearsed=True)
    found = {}
    for title, step in steps(UCI_SIZES, "marginal_likelihood"):
        predictor = applied(step, point, task, split)
        belief = predict(predictor, task.test)
        rmse = float((belief.mean - task.test.y).square().mean().sqrt())
        found[title] = {"nll": nll(predictor, task), "rmse": rmse}
    return found


def toy(options: Options) -> Section:
    """What rules keep of the full posterior's standard deviation between two clouds of points."""
    runs = [
        remembered(
            options.root / "subnetwork_laplace" / f"toy-{seed}-{options.epochs(1000)}.json",
            lambda s=seed: gap_deviation(options, s),
        )
        for seed in range(options.seeds)
    ]
    rows = [
        [
            rule,
            *(number([run_[f"{rule}|{size}"] for run_ in runs], 2) for size in TOY_SIZES),
            " / ".join(f"{value:.2f}" for value in SHEET_TOY[rule]),
        ]
        for rule in RULES
    ]
    rows.append(["all weights, diagonal", number([r["all weights, diagonal"] for r in runs], 2), "", "", "0.45"])
    dead = number([100 * run_["dead"] for run_ in runs], 0)
    return Section(
        "1-50-50-1 MLP on y = x³ with a gap: standard deviation of the function in the gap, relative to full Laplace",
        ["chosen by", *(f"{size:.0%}" for size in TOY_SIZES), "earlier prototype, same sizes"],
        rows,
        f"120 training points, prior precision 1, {dead} % of the weights without any effect (their Jacobian is zero "
        "on every training row). The prototype is ours, at the same scale on data of its own; dead weights could be "
        "chosen there, and here by the last rule alone.",
    )


def gap_deviation(options: Options, seed: int) -> Numbers:
    """Mean standard deviation of the function in the gap, relative to that of the full posterior."""
    task = cubic(n=120, gap=True, seed=seed)
    x = task.shifts["gap"].x
    sampler = AdamW(epochs=options.epochs(1000), lr=1e-2, batch_size=40, weight_decay=1e-3)
    point = Recipe(backbone=MLP(hidden=(50, 50)), sampler=sampler).fit(task, seed, rehearsed=True)
    network = next(point.networks())

    def deviation(step: Laplace) -> float:
        likelihood = network.likelihood
        with torch.no_grad():
            belief = applied(step, point, task, seed)(x)
            noise = likelihood.unstandardised(*likelihood.moments(network(x))).variance
        return float((belief.variance - noise).clamp_min(0).sqrt().mean())

    full = deviation(Laplace(subset="all", structure="full", prior_precision=1.0, memory=4.0))
    found = {
        "all weights, diagonal": deviation(Laplace(subset="all", structure="diagonal", prior_precision=1.0)) / full
    }
    for rule, make in RULES.items():
        for size in TOY_SIZES:
            step = Laplace(subset=make(k=size), structure="full", prior_precision=1.0, memory=4.0)
            found[f"{rule}|{size}"] = deviation(step) / full
    scores = Contribution().scores(network, task)
    return found | {"dead": float((scores == 0).double().mean())}


def small_digits(seed: int) -> Task:
    """300 training digits."""
    return digits(test=997, val=100, calibration=400, seed=seed)


def classes(options: Options) -> Section:
    """Digits: test NLL by rule and size, the prior chosen on calibration rows."""
    runs = [
        remembered(
            options.root / "subnetwork_laplace" / f"digits-{seed}-{options.epochs(200)}.json",
            lambda s=seed: digit_numbers(options, s),
        )
        for seed in range(options.seeds)
    ]

    def cell(title: str, metric: str = "nll") -> str:
        return number([run_[title][metric] for run_ in runs])

    rows = [
        [
            rule,
            *(cell(f"{rule}|{size}") for size in DIGIT_SIZES),
            " / ".join(f"{value:.3f}" for value in SHEET_DIGITS.get(rule, ())),
        ]
        for rule in RULES
    ]
    rows += [
        ["nothing (MAP)", cell("MAP"), "", "", "0.280"],
        ["last layer", cell("last layer"), "", "", ""],
        ["all weights, diagonal", cell("all weights, diagonal"), "", "", ""],
    ]
    return Section(
        "Digits, 300 training rows, MLP 64-32-32-10: test NLL by rule and share of the weights",
        ["chosen by", *(f"{size:.0%}" for size in DIGIT_SIZES), "earlier prototype, same sizes"],
        rows,
        f"Prior precision of least NLL on 400 calibration rows. Accuracy: MAP {cell('MAP', 'accuracy')}, SWAG variance "
        f"at 1 % {cell('SWAG variance|0.01', 'accuracy')}.",
    )


def digit_numbers(options: Options, seed: int) -> Numbers:
    """NLL and accuracy of every posterior around one network."""
    task = small_digits(seed)
    sampler = AdamW(epochs=options.epochs(200), lr=1e-3, batch_size=32, weight_decay=1e-3)
    point = Recipe(backbone=MLP(hidden=(32, 32)), sampler=sampler).fit(task, seed, rehearsed=True)
    found = {}
    for title, step in steps(DIGIT_SIZES, "calibration"):
        if title == "all weights, full":
            continue  # 3,500 x 3,500: the last column of the sizes says what more weights bring
        found[title] = class_scores(applied(step, point, task, seed), task)
    return found


def class_scores(predictor: Predictor, task: Task) -> Numbers:
    """NLL and accuracy on the test rows."""
    belief = predict(predictor, task.test)
    return {"nll": nll(predictor, task), "accuracy": float(accuracy(belief.log_probs, task.test.y))}


def by_evidence(options: Options) -> Section:
    """Digits: fixed priors against precisions that the evidence moves, with labels as they are, and with noisy ones."""
    epochs = options.epochs(150)
    rows = []
    for wrong in (0.0, 0.3):
        runs = [
            remembered(
                options.root / "subnetwork_laplace" / f"evidence-{wrong}-{seed}-{epochs}.json",
                lambda s=seed, w=wrong: evidence_numbers(s, epochs, w),
            )
            for seed in range(options.seeds)
        ]
        for title in runs[0]:
            numbers = [run_[title] for run_ in runs]
            cells = [number([n[key] for n in numbers]) for key in ("nll", "accuracy", "laplace")]
            groups = zip(*(n["precisions"] for n in numbers), strict=True)
            priors = ", ".join(f"{math.exp(sum(map(math.log, group)) / len(group)):.2g}" for group in groups)
            rows.append([f"{wrong:.0%}", title, *cells, priors])
    return Section(
        "Training by marginal likelihood: digits, 300 training rows, MLP 64-32-32-10, Adam",
        ["random training labels", "prior precision", "NLL", "accuracy", "NLL under Laplace", "precisions by layer"],
        rows,
        "A fixed precision is one for all layers and never moves; the last two rows of each block are "
        "`marginal_likelihood(every=3, lr=0.3)`. `NLL under Laplace`: probit predictions of Kronecker Laplace over all "
        "weights at precisions of largest evidence, a layer each. Precisions: geometric means over seeds, after "
        "training.",
    )


def evidence_numbers(seed: int, epochs: int, wrong: float) -> Numbers:
    """Test NLL with and without Laplace, and the precisions, under fixed priors and under the evidence's."""
    task = small_digits(seed)
    if wrong:
        generator = torch.Generator().manual_seed(seed)
        y = task.train.y.clone()
        chosen = torch.randperm(len(y), generator=generator)[: round(wrong * len(y))]
        y[chosen] = torch.randint(10, (len(chosen),), generator=generator)
        task = replace(task, train=Split("train", task.train.x, y))
    inner = AdamW(epochs=epochs, lr=3e-3, batch_size=64, weight_decay=0.0)
    found = {}
    for title, start, moves in (
        ("1e-4, fixed", 1e-4, False),
        ("1, fixed", 1.0, False),
        ("10, fixed", 10.0, False),
        ("by evidence, from 1e-4", 1e-4, True),
        ("by evidence, from 1", 1.0, True),
    ):
        sampler = MarginalLikelihood(
            inner=inner, prior_precision=start, every=3, warmup_epochs=0 if moves else epochs, lr=0.3
        )
        network = Recipe(backbone=MLP(hidden=(32, 32))).build(task, seed).train()
        state = sampler.init(network, task.sealed(), Run(seed))
        for epoch in range(epochs):
            for batch in task.train.batches(64, Run(seed).generator("order", epoch)):
                sampler.step(state, network_loss, batch)
        point = sampler.predictor(state).eval()
        made = Laplace(subset="all", prior_scope="layer")(point, task.sealed())
        found[title] = class_scores(point, task) | {
            "laplace": nll(made, task),
            "precisions": state.prior_precision.tolist(),
        }
    return found


def cost(options: Options) -> Section:
    """Seconds and memory of a full covariance, by the number of parameters."""
    sizes = [200] if options.quick else COST_SIZES
    rows = []
    for size in sizes:
        place = options.root / "subnetwork_laplace" / f"cost-{size}.json"
        found = remembered(place, lambda k=size: apart(options, k))
        rows.append([f"{size:,}", *(f"{found[key]:.1f}" for key in ("fit", "predict", "gib"))])
    return Section(
        "Full covariance over a subnetwork: UCI power plant, 8,180 training rows, MLP 4-200-60",
        ["parameters", "fit, seconds", "1,000 predictions, seconds", "peak memory of the process, GiB"],
        rows,
        "Processor time of one thread, each size in a process of its own (torch and the data take 0.4 GiB of it). "
        "The 10,000 weights of largest magnitude of 12,920; `memory=4.0`; marginal likelihood chooses the prior "
        "precision from one eigendecomposition in float64.",
    )


def apart(options: Options, size: int) -> Numbers:
    """One size, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, str(options.data_dir), size).result()


def measured(data_dir: str, size: int) -> Numbers:
    """Processor seconds of a fit and of 1,000 predictions, and the peak of memory."""
    torch.set_num_threads(1)
    task = load_task("uci/power-plant", split=0, data_dir=data_dir)
    sampler = AdamW(epochs=2, lr=1e-3, batch_size=64)
    point = Recipe(backbone=MLP(hidden=(200, 60)), sampler=sampler).fit(task, 0, rehearsed=True)
    start = time.process_time()
    made = Laplace(subset=Magnitude(k=size), structure="full", memory=4.0)(point, task.sealed())
    fitted = time.process_time()
    with torch.no_grad():
        made(task.train.x[:1000])
    return {
        "fit": fitted - start,
        "predict": time.process_time() - fitted,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
