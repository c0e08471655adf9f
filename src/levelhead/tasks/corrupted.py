"""Published corrupted test sets as they are distributed: CIFAR-10-C and CIFAR-100-C, MNIST-C, ImageNet-C.

CIFAR-10-C/    fog.npy, ..., labels.npy: each (5 n, 32, 32, 3), the five severities one after the other
mnist_c/       fog/test_images.npy (n, 28, 28, 1) and test_labels.npy, ...: one severity; identity/ is the clean set
ImageNet-C/    fog/3/n01440764/*.JPEG, ..., perhaps below a folder weather/, blur/, ...
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from levelhead.tasks.folder import pictures
from levelhead.tasks.stored import ArrayPixels, PicturePixels, StoredSplit, mapped
from levelhead.tasks.task import Task

SEVERITIES = (1, 2, 3, 4, 5)
LABELS = "labels.npy"
MNIST_C = ("test_images.npy", "test_labels.npy")
CLEAN = "identity"
WANTED = (
    "NAME.npy beside labels.npy (CIFAR-10-C), NAME/test_images.npy (MNIST-C), "
    "or NAME/SEVERITY/CLASS/PICTURE (ImageNet-C)"
)


def with_corrupted(task: Task, folder: str | Path) -> Task:
    """The task with the sets of a folder among its `shifts`, called `fog-3` (MNIST-C: `fog`), read when they are used.

    Raises FileNotFoundError where the folder holds none, and ValueError for sets that are not of the task: other
    shapes, labels that it does not have.
    """
    where = Path(folder).expanduser()
    sets = corrupted_sets(where, task)
    if not sets:
        raise FileNotFoundError(f"{where} holds no corrupted test sets; wants {WANTED}")
    return replace(task, shifts={**task.shifts, **sets}, args={**task.args, "corrupted": where.resolve().name})


def corrupted_sets(where: Path, task: Task) -> dict[str, StoredSplit]:
    """The sets in a folder by name, in any of the three layouts; empty where there are none."""
    if (where / LABELS).is_file():
        return blocks_of_arrays(where)
    arrays = {place.parent.name: place.parent for place in sorted(where.glob(f"*/{MNIST_C[0]}"))}
    if arrays:
        return {name: one_array(name, place) for name, place in arrays.items() if name != CLEAN}
    found = sorted({place.parent for depth in ("*/1", "*/*/1") for place in where.glob(depth) if place.is_dir()})
    return {
        f"{place.name}-{severity}": of_pictures(f"{place.name}-{severity}", place / str(severity), task)
        for place in found
        for severity in SEVERITIES
        if (place / str(severity)).is_dir()
    }


def blocks_of_arrays(where: Path) -> dict[str, StoredSplit]:
    """CIFAR-10-C: every file holds the severities as five blocks, whose labels repeat."""
    labels = np.load(where / LABELS, allow_pickle=False)
    found = {}
    for file in sorted(where.glob("*.npy")):
        if file.name == LABELS:
            continue
        total = len(mapped(file))
        if total % len(SEVERITIES) or total != len(labels):
            raise ValueError(
                f"{file}: {total} images beside {len(labels)} labels; wants five blocks, and as many labels"
            )
        size = total // len(SEVERITIES)
        for severity in SEVERITIES:
            start = size * (severity - 1)
            y = torch.from_numpy(labels[start : start + size].astype(np.int64))
            name = f"{file.stem}-{severity}"
            found[name] = StoredSplit(name, ArrayPixels(file, start, size), y)
    return found


def one_array(name: str, place: Path) -> StoredSplit:
    """MNIST-C: images and labels of the test set, under one corruption at its one severity."""
    images, labels = (place / file for file in MNIST_C)
    y = torch.from_numpy(np.load(labels, allow_pickle=False).astype(np.int64).reshape(-1))
    return StoredSplit(name, ArrayPixels(images, 0, len(mapped(images))), y)


def of_pictures(name: str, place: Path, task: Task) -> StoredSplit:
    """ImageNet-C: a folder a class, called as the task calls its classes."""
    known = {label: number for number, label in enumerate(task.classes)}
    folders = sorted(child for child in place.iterdir() if child.is_dir())
    strange = [child.name for child in folders if child.name not in known]
    if strange:
        raise ValueError(
            f"{place}: {strange[0]!r} is no class of {task.name!r}, which has {', '.join(known) or 'none'}"
        )
    files = [(file, known[child.name]) for child in folders for file in pictures(child)]
    channels, height, width = task.signature.input_shape
    if height != width:
        raise ValueError(f"{place}: {task.name!r} has images of {height} x {width}; corrupted pictures are square")
    pixels = PicturePixels(tuple(file for file, _ in files), side=height, grey=channels == 1)
    return StoredSplit(name, pixels, torch.tensor([label for _, label in files]))
