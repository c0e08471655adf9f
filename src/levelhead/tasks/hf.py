"""hf:NAME, a data set of pictures with labels from the Hugging Face hub, or a local folder in its layout."""

from typing import Any

import torch
from torch import Tensor

from levelhead.tasks.augment import Augment
from levelhead.tasks.images import stacked
from levelhead.tasks.own import from_tensors
from levelhead.tasks.task import Task
from levelhead.types import require


def hf(
    name: str,
    *,
    size: int | None = None,
    grey: bool = False,
    image: str | None = None,
    label: str | None = None,
    train: str = "train",
    test: str | None = None,
    augment: Augment | None = None,
    seed: int = 0,
) -> Task:
    """A task of one picture column and one label column; needs `datasets` and Pillow (extra `data`).

    size, grey    as for `folder:`: one square size, one channel.
    image, label  the columns; None takes the only one of its kind.
    train, test   names of the published splits; test=None takes "test", else "validation", else draws 20 % of train.

    Validation and calibration are drawn from train, 10 % each, with `seed`. The whole set is held in memory.
    Raises ValueError where columns or splits do not fit, naming those that are there.
    """
    datasets = require("datasets", extra="data")
    loaded = datasets.load_dataset(name)
    if train not in loaded or (test is not None and test not in loaded):
        raise ValueError(f"hf:{name} has the splits {', '.join(loaded)}; choose with train= and test=")
    features = loaded[train].features
    x_column = only(name, "image", image, [key for key, kind in features.items() if isinstance(kind, datasets.Image)])
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    integers = [key for key, kind in features.items() if getattr(kind, "dtype", None) == "int64"]
    y_column = only(name, "label", label, labels or integers)
    held_out = test or next((part for part in ("test", "validation") if part in loaded), None)

    def read(part: str) -> tuple[Tensor, Tensor]:
        return stacked(loaded[part][x_column], size=size, grey=grey), torch.tensor(list(loaded[part][y_column]))

    return from_tensors(
        *read(train),
        test=None if held_out is None else read(held_out),
        classes=features[y_column].names if y_column in labels else (),
        augment=augment,
        name=f"hf:{name.rpartition('/')[2]}",
        seed=seed,
        args={"size": size, "grey": grey, "train": train, "test": held_out},
    )


def only(name: str, kind: str, chosen: str | None, columns: list[Any]) -> str:
    """The chosen column, or the only one there is."""
    if chosen is not None:
        return chosen
    if len(columns) != 1:
        raise ValueError(f"hf:{name} has {len(columns)} columns that could be the {kind} ({columns}); say {kind}=NAME")
    return str(columns[0])
