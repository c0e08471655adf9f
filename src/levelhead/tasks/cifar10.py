"""CIFAR-10: 60,000 colour pictures, 32 x 32, ten classes (Krizhevsky, 2009), from Parquet in Hugging Face's layout."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from levelhead.likelihood import Categorical
from levelhead.tasks.augment import Augment
from levelhead.tasks.carve import carve
from levelhead.tasks.digits import clothes_like, digits_like
from levelhead.tasks.files import CACHE, find, locate
from levelhead.tasks.images import decoded
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task
from levelhead.types import require

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = ("train.parquet", "test.parquet")
HOW = (
    "Both are tables with a column img of {bytes, path} and a column label; "
    "datasets.load_dataset('uoft-cs/cifar10') writes them with to_parquet."
)


def cifar10(
    *,
    val: int = 5000,
    calibration: int = 2500,
    augment: Augment | None = Augment(),
    seed: int = 0,
    ood: bool = False,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Task:
    """42,500 training, 5,000 validation, 2,500 calibration and the official 10,000 test images; flip and crop by 4.

    Validation and calibration are drawn from the official training images, class by class, with `seed`. The first
    call decodes data_dir/cifar10/{train,test}.parquet, which needs pyarrow and Pillow (extra `study`), and keeps the
    pixels as bytes in `cache_dir` (~/.cache/levelhead), named by the files' content: later calls read those.

    ood  with two far sets that need no files: 1,000 handwritten digits and 1,000 clothes, grey, enlarged to 32 x 32;
         and where data_dir has cifar100/test.parquet or svhn/test.parquet, `near-cifar100` and `svhn`.
    """
    folder = locate("cifar10", FILES, data_dir=data_dir, how=HOW)
    cache = Path(cache_dir or CACHE).expanduser() / "cifar10"
    pool, test = (Split(file.partition(".")[0], *cached(folder / file, cache)) for file in FILES)
    splits = carve(pool, {"val": val, "calibration": calibration}, seed=seed, apart_from=[test])
    return Task(
        name="cifar10",
        train=splits["train"],
        val=splits["val"],
        calibration=splits["calibration"],
        test=test,
        likelihood=Categorical(len(CLASSES)),
        augment=augment,
        ood=outer_sets(data_dir, cache.parent) if ood else {},
        classes=CLASSES,
        args={"val": val, "calibration": calibration, "seed": seed},
        known_overlaps=True,  # published with equal images on both sides
    )


def outer_sets(data_dir: str | Path | None, cache: Path) -> dict[str, Split]:
    """Sets that hold none of the classes: CIFAR-100's are near, house numbers, digits and clothes far."""
    found = {}
    for folder, name in (("cifar100", "near-cifar100"), ("svhn", "svhn")):
        place = find(folder, FILES[1:], data_dir=data_dir, itself=False)
        if place is not None:
            found[name] = unlabelled(name, cached(place / FILES[1], cache / folder)[0])
    return {**found, "digits": colours(digits_like(32)), "clothes": colours(clothes_like(32))}


def colours(split: Split) -> Split:
    """Grey images as colour images of equal channels."""
    return unlabelled(split.name, repeat(split.x, "n 1 h w -> n channel h w", channel=3))


def cached(source: Path, cache: Path) -> tuple[Tensor, Tensor]:
    """Pixels and labels of a Parquet file, from the cache where it has them, else decoded and put there.

    The name holds the source's SHA-256, and the archive's own checksums guard what is read.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    kept = cache / f"{source.stem}-{digest[:16]}.npz"
    if not kept.is_file():
        x, y = read_parquet(source)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".tmp", delete=False) as stream:
            np.savez(stream, x=x.numpy(), y=y.numpy())
        os.replace(stream.name, kept)  # whole or not at all, also with several processes
    with np.load(kept, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])


def read_parquet(source: Path) -> tuple[Tensor, Tensor]:
    """Pixels and labels of a table with the columns img (or image) and label (or fine_label)."""
    parquet = require("pyarrow.parquet", extra="study")
    table = parquet.read_table(source)
    column = next((name for name in ("img", "image") if name in table.column_names), None)
    label = next((name for name in ("label", "fine_label") if name in table.column_names), None)
    if column is None or label is None:
        raise ValueError(f"{source}: wants columns img and label, got {', '.join(table.column_names)}")
    pictures = [entry["bytes"] for entry in table[column].to_pylist()]
    return decoded(pictures), torch.from_numpy(table[label].to_numpy().astype(np.int64))
