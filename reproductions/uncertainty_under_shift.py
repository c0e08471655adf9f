"""Can you trust your model's uncertainty: seven methods under shift, and the paper's claims one by one."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from levelhead import evaluation
from levelhead.evaluations.shift import Shift
from levelhead.metrics.statistics import over_seeds
from levelhead.predictor import Ensemble
from levelhead.storage import load
from levelhead.studies.compare import Comparison, run_study
from levelhead.studies.corruption_error import corruption_error
from levelhead.studies.ovadia import BASELINE, SVI, ovadia_study
from reproductions.harness import Options, Section, number

NAMES = {
    BASELINE: "vanilla",
    "temperature": "temperature",
    "mc_dropout": "dropout",
    "deep_ensemble(size=4)": "ensemble of 4",
    SVI: "SVI",
    "mc_dropout(where='head')": "LL-dropout",
    "mean_field(within='head') + elbo": "LL-SVI",
}
ENSEMBLE, DROPOUT, LL_DROPOUT, LL_SVI = (list(NAMES)[k] for k in (3, 2, 5, 6))
SHARES = (0.25, 0.5, 0.75)
# Ovadia et al. (arXiv 1906.02530), appendix G, quantiles over all corrupted CIFAR-10 sets, 25 / 50 / 75 %. The paper's
# table has the first and last row of NLL the wrong way round (they fall); here they grow.
PUBLISHED = {
    "brier": {
        BASELINE: (0.243, 0.425, 0.747),
        "temperature": (0.227, 0.392, 0.670),
        ENSEMBLE: (0.165, 0.299, 0.572),
        DROPOUT: (0.215, 0.349, 0.633),
        LL_DROPOUT: (0.259, 0.416, 0.728),
        SVI: (0.250, 0.363, 0.604),
        LL_SVI: (0.246, 0.431, 0.732),
    },
    "nll": {
        BASELINE: (0.578, 1.120, 2.356),
        "temperature": (0.473, 0.871, 1.685),
        ENSEMBLE: (0.342, 0.653, 1.543),
        DROPOUT: (0.446, 0.771, 1.684),
        LL_DROPOUT: (0.626, 1.086, 2.275),
        SVI: (0.533, 0.823, 1.628),
        LL_SVI: (0.591, 1.158, 2.352),
    },
    "ece": {
        BASELINE: (0.057, 0.127, 0.288),
        "temperature": (0.022, 0.049, 0.180),
        ENSEMBLE: (0.031, 0.037, 0.110),
        DROPOUT: (0.021, 0.034, 0.174),
        LL_DROPOUT: (0.069, 0.136, 0.292),
        SVI: (0.029, 0.064, 0.187),
        LL_SVI: (0.058, 0.135, 0.275),
    },
}
TITLES = {"brier": "Brier", "nll": "NLL", "ece": "ECE"}


def run(options: Options) -> list[Section]:
    """Turned and moved clothes, corrupted pictures, and the claims."""
    fashion, _ = measured(options, "fashion-mnist")
    cifar, comparison = measured(options, "cifar10")
    sizes = by_size(comparison, options)
    return [
        quantiles("CIFAR-10 under 15 corruptions x 5 severities (ResNet-8 of 8 filters, 10,000 images)", cifar, True),
        by_severity("CIFAR-10: ECE by severity, mean over the corruptions", cifar, "ece", (0, 1, 2, 3, 4, 5)),
        errors(comparison),
        quantiles("Fashion-MNIST, rotated and translated, 25 sets (LeNet-5, 10,000 images)", fashion, False),
        angles("Fashion-MNIST: NLL by angle", fashion),
        clean("Clean and foreign rows", fashion, cifar),
        claims(fashion, cifar, sizes),
    ]


def measured(options: Options, task: str) -> tuple[pd.DataFrame, Comparison]:
    """The protocol's records on one task, from the common root where they are there."""
    changes = (("sampler.epochs", 1),) if options.quick else ()
    study = ovadia_study(
        task, seeds=tuple(range(options.seeds)), options=(("data_dir", str(options.data_dir)),), changes=changes
    )
    comparison = run_study(study, root=options.root, workers=options.workers)
    if comparison.failures:
        raise SystemExit(f"cells failed: {dict(comparison.failures)}")
    return comparison.records(), comparison


def values(table: pd.DataFrame, recipe: str, metric: str, severity: int, **where: Any) -> torch.Tensor:
    """One number a seed: the mean over the kinds at a severity; 0 is clean."""
    found = table[(table["recipe"] == recipe) & (table["metric"] == metric)]
    found = found[found["evaluation"] == ("shift" if severity else "clean")]
    if severity:
        found = found[found["severity"] == severity]
        for column, value in where.items():
            found = found[found[column] == value]
    return torch.tensor(found.groupby("seed")["value"].mean().to_numpy())


def quantile(table: pd.DataFrame, recipe: str, metric: str, share: float) -> torch.Tensor:
    """One number a seed: a quantile over all kinds and severities."""
    found = table[(table["recipe"] == recipe) & (table["metric"] == metric) & (table["evaluation"] == "shift")]
    return torch.tensor(found.groupby("seed")["value"].quantile(share).to_numpy())


def quantiles(title: str, table: pd.DataFrame, published: bool) -> Section:
    """Every method at the three quantiles of Brier, NLL and ECE, the paper's number in brackets."""
    rows = []
    for recipe, name in NAMES.items():
        row = [name]
        for metric in TITLES:
            for place, share in enumerate(SHARES):
                cell = number(quantile(table, recipe, metric, share).tolist())
                row.append(f"{cell} ({PUBLISHED[metric][recipe][place]:.3f})" if published else cell)
        rows.append(row)
    header = ["method", *(f"{what} {100 * share:.0f} %" for what in TITLES.values() for share in SHARES)]
    note = "In brackets the paper's ResNet-20, 40,000 images, 200 epochs, 10 members." if published else ""
    return Section(title, header, rows, note)


def by_severity(title: str, table: pd.DataFrame, metric: str, levels: Sequence[int]) -> Section:
    """A metric by severity."""
    rows = [
        [name, *(number(values(table, recipe, metric, level).tolist()) for level in levels)]
        for recipe, name in NAMES.items()
    ]
    return Section(title, ["method", *(f"severity {level}" if level else "clean" for level in levels)], rows)


def angles(title: str, table: pd.DataFrame) -> Section:
    """NLL at some of the twelve angles."""
    shown = (0, 1, 2, 3, 4, 6, 12)
    rows = [
        [name, *(number(values(table, recipe, "nll", level, data="rotation").tolist(), 2) for level in shown)]
        for recipe, name in NAMES.items()
    ]
    return Section(title, ["method", *(f"{15 * level}°" for level in shown)], rows)


def errors(comparison: Comparison) -> Section:
    """Mean corruption error and its twins, in units of the plain recipe."""
    found = corruption_error(*(cell.folder for cell in comparison.cells), baseline=BASELINE)
    by_name = {(line.recipe, line.metric): line for line in found.itertuples(index=False)}
    rows = []
    for recipe, name in NAMES.items():
        lines = [by_name[recipe, metric] for metric in ("error", "nll", "ece")]
        rows.append([name, *(f"{line.mce:.3f} ± {line.mce_se:.3f}" for line in lines)])
    header = ["method", "mCE", "of NLL", "of ECE"]
    return Section("CIFAR-10: mean corruption error, in units of vanilla's", header, rows)


def clean(title: str, fashion: pd.DataFrame, cifar: pd.DataFrame) -> Section:
    """Accuracy, NLL and ECE on test rows; AUROC of the entropy on the foreign sets."""

    def outside(table: pd.DataFrame, recipe: str) -> str:
        found = table[(table["recipe"] == recipe) & (table["metric"] == "auroc_total")]
        return number([100 * float(v) for v in found.groupby("seed")["value"].mean()], 1)

    rows = []
    for recipe, name in NAMES.items():
        row = [name]
        for table in (fashion, cifar):
            row.append(number((100 * values(table, recipe, "accuracy", 0)).tolist(), 1))
            row += [number(values(table, recipe, metric, 0).tolist()) for metric in ("nll", "ece")]
            row.append(outside(table, recipe))
        rows.append(row)
    columns = ("accuracy %", "NLL", "ECE", "OOD AUROC %")
    header = ["method", *(f"{task} {what}" for task in ("Fashion", "CIFAR") for what in columns)]
    note = "Foreign to Fashion-MNIST: digits and MNIST; to CIFAR-10: digits and clothes. Clean rows: all 10,000."
    return Section(title, header, rows, note)


def by_size(comparison: Comparison, options: Options) -> dict[int, list[float]]:
    """Mean shifted Brier by the number of members, a number a seed: the stored ensembles, cut short."""
    suites = (Shift(severities=(1, 3, 5), limit=250),)
    found: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for cell in comparison.cells:
        if cell.name != ENSEMBLE:
            continue
        whole, task = load(cell.folder / "predictor"), cell.source.load()
        assert isinstance(whole, Ensemble)
        for size, scores in found.items():
            part = Ensemble(list(whole.members)[:size])
            records = evaluation.records(part, task, suites)
            scores.append(float(torch.tensor([r.value for r in records if r.metric == "brier"]).mean()))
    return found


def claims(fashion: pd.DataFrame, cifar: pd.DataFrame, sizes: dict[int, list[float]]) -> Section:
    """The paper's claims in its order; yes and no are computed from the means."""
    tables = {"Fashion-MNIST": fashion, "CIFAR-10": cifar}

    def mean(table: pd.DataFrame, recipe: str, metric: str, level: int) -> float:
        return float(values(table, recipe, metric, level).mean())

    def median(table: pd.DataFrame, recipe: str, metric: str) -> float:
        return float(quantile(table, recipe, metric, 0.5).mean())

    growing = [
        name
        for recipe, name in NAMES.items()
        if all(mean(cifar, recipe, "nll", k) < mean(cifar, recipe, "nll", k + 1) for k in range(5))
    ]
    first = ["1. every method degrades with intensity (CIFAR-10, NLL at each of levels 0 to 5)"]
    first += [verdict(len(growing) == len(NAMES)), f"{len(growing)} of {len(NAMES)} grow at every step"]

    second, third = calibrated(tables)

    worse, said = [], []
    for where, table in tables.items():
        for recipe in (LL_DROPOUT, LL_SVI):
            gap = quantile(table, recipe, "brier", 0.5) - quantile(table, BASELINE, "brier", 0.5)
            middle, error = (float(v) for v in over_seeds(gap.double()))
            worse.append(middle > -2 * error if error == error else middle >= 0)
            said.append(f"{where} {NAMES[recipe]} {middle:+.3f} ± {error:.3f}")
    fourth = [
        "3. the last-layer forms are no better than vanilla (median shifted Brier, difference to vanilla, paired)",
        verdict(all(worse), any(worse)),
        "; ".join(said),
    ]

    gain = [(one - two) / (one - four) for one, two, four in zip(sizes[1], sizes[2], sizes[4], strict=True)]
    fifth = [
        "4. few members give most of the ensemble's gain (CIFAR-10, shifted Brier; the paper: 5 of 10)",
        verdict(sum(gain) / len(gain) > 0.5),
        f"1, 2 and 4 members: {', '.join(number(found) for found in sizes.values())}; "
        f"2 give {number([100 * g for g in gain], 0)} % of the gain of 4. A net of twice the width was not trained",
    ]

    wins = {
        where: {metric: min(NAMES, key=lambda r: median(table, r, metric)) for metric in TITLES}
        for where, table in tables.items()
    }
    on_fashion = sum(recipe == SVI for recipe in wins["Fashion-MNIST"].values())
    on_cifar = sum(recipe == SVI for recipe in wins["CIFAR-10"].values())
    sixth = [
        "5. SVI wins on the small grey task and not on CIFAR-10 (lowest median of Brier, NLL, ECE)",
        verdict(on_fashion >= 2 and on_cifar == 0, on_fashion > on_cifar),
        "; ".join(
            f"{where}: " + ", ".join(f"{TITLES[m]} {NAMES[r]}" for m, r in found.items())
            for where, found in wins.items()
        ),
    ]
    seventh = [
        "6. on Criteo temperature scaling is worse than vanilla",
        "not measured",
        "there are no data for it here",
    ]
    note = "Yes and no are computed from the means over seeds; 'in part' where one of two parts holds."
    rows = [first, second, third, fourth, fifth, sixth, seventh]
    return Section("The paper's claims, in its order", ["claim", "holds here", "numbers"], rows, note)


def calibrated(tables: dict[str, pd.DataFrame]) -> tuple[list[str], list[str]]:
    """Calibration on clean rows, and what it is worth under shift: on CIFAR-10 at severity 5, else over all sets."""
    best, overtaken, clean_said, shift_said = [], [], [], []
    for where, table in tables.items():
        before = {recipe: float(values(table, recipe, "ece", 0).mean()) for recipe in NAMES}
        if where == "CIFAR-10":
            after = {recipe: float(values(table, recipe, "ece", 5).mean()) for recipe in NAMES}
        else:
            after = {recipe: float(quantile(table, recipe, "ece", 0.5).mean()) for recipe in NAMES}
        best.append(min(before, key=lambda recipe: before[recipe]) == "temperature")
        overtaken += [after[recipe] < after["temperature"] for recipe in (DROPOUT, ENSEMBLE)]
        clean_said.append(f"{where}: {in_order(before)}")
        shift_said.append(f"{where}: {in_order(after)}")
    claim = "2a. temperature scaling is best calibrated on clean rows (ECE)"
    where_to_look = "ECE; Fashion-MNIST: median of the 25 sets, CIFAR-10: severity 5"
    other = f"2b. and is overtaken under shift by dropout and by ensembles ({where_to_look})"
    first = [claim, verdict(all(best), any(best)), "; ".join(clean_said)]
    return first, [other, verdict(all(overtaken), any(overtaken)), "; ".join(shift_said)]


def in_order(found: dict[str, float]) -> str:
    """Methods with their numbers, the lowest first."""
    return ", ".join(f"{NAMES[recipe]} {found[recipe]:.3f}" for recipe in sorted(found, key=lambda r: found[r]))


def verdict(whole: bool, part: bool = False) -> str:
    """Yes, in part, or no."""
    return "yes" if whole else "in part" if part else "no"
