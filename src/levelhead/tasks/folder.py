"""folder:PATH, pictures in one folder a class: PATH/cat/1.jpg, or PATH/train/cat/1.jpg and PATH/test/cat/2.jpg."""

from pathlib import Path

import torch
from torch import Tensor

from levelhead.tasks.augment import Augment
from levelhead.tasks.images import decoded
from levelhead.tasks.own import from_tensors
from levelhead.tasks.task import Task

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PARTS = ("train", "val", "calibration", "test")


def folder(
    path: str | Path, *, size: int | None = None, grey: bool = False, augment: Augment | None = None, seed: int = 0
) -> Task:
    """A task of pictures whose folder is their class; needs Pillow (extra `study`).

    size  resizes all pictures to a square; None wants them equal already.
    grey  makes one channel of them instead of three.

    Where PATH has a folder `train`, it and `test`, `val` and `calibration` beside it are the splits; those that are
    absent are drawn from train, 20 % for test and 10 % each for the others, class by class with `seed`.
    Raises ValueError where there are no two classes, or pictures of different sizes without `size`.
    """
    root = Path(path).expanduser()
    published = (root / "train").is_dir()
    parts = {part: root / part for part in PARTS if (root / part).is_dir()} if published else {"train": root}
    classes = class_names(parts["train"])
    read = {part: read_part(place, classes, size=size, grey=grey) for part, place in parts.items()}
    x, y = read.pop("train")
    return from_tensors(
        x,
        y,
        test=read.get("test"),
        val=read.get("val"),
        calibration=read.get("calibration"),
        classes=classes,
        augment=augment,
        name=f"folder:{root.resolve().name}",
        seed=seed,
        args={"size": size, "grey": grey},
    )


def class_names(root: Path) -> list[str]:
    """The folders in `root` that hold pictures, sorted. Raises ValueError for fewer than two."""
    found = (
        sorted(place.name for place in root.iterdir() if place.is_dir() and pictures(place)) if root.is_dir() else []
    )
    if len(found) < 2:
        raise ValueError(
            f"{root}: wants a folder a class with pictures ({', '.join(SUFFIXES)}), at least two; got {found or 'none'}"
        )
    return found


def read_part(root: Path, classes: list[str], *, size: int | None, grey: bool) -> tuple[Tensor, Tensor]:
    """Pictures and labels of one split. Raises ValueError for a class that train does not have."""
    strange = set(class_names(root)) - set(classes)
    if strange:
        raise ValueError(f"{root}: {', '.join(sorted(strange))} is no class of train, which has {', '.join(classes)}")
    files = [(file, label) for label, name in enumerate(classes) for file in pictures(root / name)]
    return decoded([file for file, _ in files], size=size, grey=grey), torch.tensor([label for _, label in files])


def pictures(place: Path) -> list[Path]:
    """The pictures in a folder and below, sorted; none where there is no such folder."""
    return sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES)
