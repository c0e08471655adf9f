"""Metrics: what calibrated predictions read, identities between areas, scores of few draws, and what scoring costs."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from levelhead.all_scores import all_scores
from levelhead.beliefs import ClassBeliefs
from levelhead.metrics.calibration import ece
from levelhead.metrics.calibration_variants import debiased_ece
from levelhead.metrics.noise_floors import noise_floors
from levelhead.metrics.ranking import augrc, aurc, auroc
from levelhead.metrics.regression_calibration import ence, ence_floor
from levelhead.metrics.samples import sample_crps
from levelhead.metrics.selective import oracle_aurc, rejection_ratio
from levelhead.metrics.smooth_calibration import smooth_ece
from levelhead.scores import scores
from reproductions.harness import Options, Section, number

EARLIER = {  # one data set each, with torchmetrics 1.9 and relplot 1.0: ECE of 15 bins, smooth ECE, debiased ECE^2
    100: (".111", ".060", "-.0022"),
    500: (".057", ".040", "+.0008"),
    2000: (".028", ".025", "+.0001"),
    20_000: (".008", ".011", "-.00002"),
}
DATA_SETS = 10  # a seed


def run(options: Options) -> list[Section]:
    """Minutes at most: nothing is trained."""
    sizes = [n for n in EARLIER if n <= (2000 if options.quick else 20_000)]
    return [
        floors(options, sizes),
        sharpened(options),
        areas(options),
        spreads(options),
        draws(options),
        costs(options),
    ]


def calibrated(n: int, seed: int, *, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Ten classes, logits of standard deviation `scale`, labels drawn from the softmax."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = (scale * torch.randn(n, 10, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def over_data_sets(options: Options, n: int, metric: Callable[[Tensor, Tensor], Tensor], digits: int) -> str:
    """Mean over data sets for each seed, then mean and standard error over seeds."""
    found, count = [], data_sets(n)
    for seed in range(options.seeds):
        values = [float(metric(*calibrated(n, 1000 * seed + i))) for i in range(count)]
        found.append(sum(values) / count)
    return number(found, digits)


def data_sets(n: int) -> int:
    """How many a seed: more of the small ones, which scatter."""
    return max(DATA_SETS, min(100, 40_000 // n))


def floors(options: Options, sizes: list[int]) -> Section:
    rows = []
    for n in sizes:
        told = noise_floors(calibrated(n, 7)[0])
        rows.append(
            [
                f"{n:,}",
                over_data_sets(options, n, ece, 4),
                f"{float(told.ece):.4f}",
                EARLIER[n][0],
                over_data_sets(options, n, smooth_ece, 4),
                f"{float(told.smooth_ece):.4f}",
                EARLIER[n][1],
                over_data_sets(options, n, lambda p, y: debiased_ece(p, y).squared, 5),
                EARLIER[n][2],
            ]
        )
    header = ["rows", "ECE", "our floor", "earlier", "smooth ECE", "our floor", "earlier", "debiased ECE²", "earlier"]
    note = (
        f"Each cell is the mean of {DATA_SETS} to 100 data sets a seed, more of the small ones. “Our floor” is what "
        "`scores` prints beside the metric, from the probabilities of one data set and no labels. “Earlier” is one "
        "data set a size, measured with torchmetrics (ECE) and relplot (smooth ECE)."
    )
    return Section("Perfectly calibrated predictions of ten classes", header, rows, note)


def sharpened(options: Options) -> Section:
    rows = []
    for name, metric in (("ECE (15 bins)", ece), ("smooth ECE", smooth_ece)):
        values = []
        for seed in range(options.seeds):
            log_probs, y = calibrated(5000, seed)
            values.append(float(metric((2 * log_probs).log_softmax(-1), y)))
        rows.append([name, number(values), ".206"])
    return Section("The same predictions with logits doubled (5,000 rows)", ["metric", "measured", "earlier"], rows)


def areas(options: Options) -> Section:
    def gaps(n: int, seed: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed)
        uncertainty = torch.rand(n, generator=generator, dtype=torch.float64)
        error = torch.rand(n, generator=generator, dtype=torch.float64) < uncertainty
        e, found = float(error.double().mean()), float(auroc(uncertainty, error))
        limit = (1 - found) * e * (1 - e) + e**2 / 2
        return {
            "AURC of the best order - [e + (1 - e) ln(1 - e)]": float(oracle_aurc(error))
            - (e + (1 - e) * math.log(1 - e)),
            "AURC of the best order - its sum": float(oracle_aurc(error)) - float(aurc(error.double(), error)),
            "AUGRC - [(1 - AUROC) e (1 - e) + e² / 2]": float(augrc(uncertainty, error)) - limit,
            "rejection ratio - [2 AUROC - 1]": float(rejection_ratio(uncertainty, error)) - (2 * found - 1),
        }

    rows = []
    for name in gaps(10, 0):
        cells = [f"{max((gaps(n, seed)[name] for seed in range(options.seeds)), key=abs):+.1e}" for n in (200, 2000)]
        rows.append([name, *cells])
    note = "The largest difference over the seeds. The first and third hold for many rows, the others at any number."
    return Section("Identities between areas", ["difference", "200 examples", "2,000 examples"], rows, note)


def spreads(options: Options) -> Section:
    rows = []
    for bins, earlier in ((10, ".0279"), (50, ".0559")):
        values = []
        for seed in range(options.seeds):
            seen = 0.0
            for i in range(DATA_SETS):
                generator = torch.Generator().manual_seed(1000 * seed + i)
                std = 0.2 + torch.rand(5000, generator=generator, dtype=torch.float64)
                error = std * torch.randn(5000, generator=generator, dtype=torch.float64)
                seen += float(ence(std, error, bins=bins)) / DATA_SETS
            values.append(seen)
        rows.append([str(bins), number(values, 4), f"{ence_floor(5000, bins=bins):.4f}", earlier])
    header = ["bins", "ENCE", "floor √(bins / π rows)", "earlier"]
    return Section("ENCE of right standard deviations (5,000 rows)", header, rows)


def draws(options: Options) -> Section:
    rows = []
    for members in (2, 5, 10, 50):
        plain, fair = [], []
        for seed in range(options.seeds):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(members, 20_000, 1, generator=generator, dtype=torch.float64)
            y = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
            plain.append(float(sample_crps(x, y, fair=False)))
            fair.append(float(sample_crps(x, y)))
        earlier = ".674 / .561" if members == 5 else ""
        rows.append([str(members), number(plain), number(fair), earlier])
    note = f"The true CRPS of a standard normal forecast of itself is 1/√π = {1 / math.sqrt(math.pi):.4f}."
    return Section("CRPS of M right draws", ["M", "plain", "fair", "earlier (plain / fair)"], rows, note)


def costs(options: Options) -> Section:
    log_probs, y = calibrated(10_000, 0)
    each = torch.zeros(10_000)
    beliefs = ClassBeliefs(log_probs.float(), each, each, each, y)
    rows = []
    for name, call in (("`scores`", scores), ("`all_scores`", all_scores)):
        times = []
        for _ in range(max(3, options.seeds)):
            started = time.process_time()
            found = call(beliefs)
            times.append(1000 * (time.process_time() - started))
        rows.append([name, str(len(found)), f"{min(times):.0f}"])
    return Section("Time for 10,000 rows of ten classes", ["call", "numbers", "milliseconds of one core, best"], rows)
