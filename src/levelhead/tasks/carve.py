"""Validation, calibration and test rows, carved out of a pool so that no row is on both sides."""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from levelhead.tasks.split import Split


def carve(
    pool: Split, sizes: Mapping[str, int], *, seed: int, rest: str = "train", apart_from: Iterable[Split] = ()
) -> dict[str, Split]:
    """Draw splits of the given sizes from `pool`; what remains, in its order, is named `rest`.

    Rows that have an equal in the pool, or in `apart_from`, are never drawn: twins stay together in `rest`, so the
    new splits are disjoint from everything. Labels are drawn in the pool's proportions (to a row), targets anyhow.
    The same seed draws the same rows on every machine.

    Raises ValueError when fewer rows without an equal exist than are wanted.
    """
    wanted = sum(sizes.values())
    elsewhere = {row for split in apart_from for row in split.row_hashes}
    counts = Counter(pool.row_hashes)
    alone = [i for i, row in enumerate(pool.row_hashes) if counts[row] == 1 and row not in elsewhere]
    if wanted > len(alone) or wanted >= len(pool):
        raise ValueError(
            f"{pool.name!r} has {len(pool)} rows, {len(alone)} of them without an equal; cannot draw "
            f"{', '.join(f'{size} for {name}' for name, size in sizes.items())} and keep some"
        )
    order = torch.tensor(alone)[torch.randperm(len(alone), generator=torch.Generator().manual_seed(seed))]
    if pool.y.dtype == torch.int64 and pool.y.ndim == 1:
        order = dealt(order, pool.y.cpu()[order])
    remains = torch.ones(len(pool), dtype=torch.bool)
    remains[order[:wanted]] = False
    parts = order[:wanted].split(list(sizes.values()))
    splits = {name: pool.take(part.sort().values, name=name) for name, part in zip(sizes, parts, strict=True)}
    return {rest: pool.take(remains.nonzero()[:, 0], name=rest), **splits}


def dealt(rows: Int[Tensor, " row"], labels: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
    """The rows in an order whose every stretch has the classes in nearly the proportions of the whole.

    The k-th of the n_c rows of class c gets the place (k + 1/2) / n_c; sorting by place deals the classes out evenly.
    """
    place = torch.empty(len(rows), dtype=torch.float64)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return rows[place.argsort(stable=True)]
