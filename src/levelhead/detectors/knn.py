"""Distance to the k-th nearest training row in normalised feature space."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look, Reading, seen
from levelhead.detectors._moments import Sample
from levelhead.types import Reference

CHUNK = 25_000_000  # similarities at a time: 100 MB of float32


@dataclass(frozen=True)
class KNN(Detector):
    """Euclidean distance from z / |z| to its k-th nearest among the training rows' z / |z|, in [0, 2].

    k     neighbours; 50 for CIFAR-10 in the paper, 200 for CIFAR-100, 1000 for ImageNet. Where the bank has fewer
          rows, the farthest one counts.
    bank  training rows that are kept, at most: drawn with `seed`, all rows where there are no more. The paper's k
          belongs to all rows: with a share of them, take that share of k.

    Each member has a bank of its own, of the same rows; the score is the mean of theirs, weighted as in the mixture.
    Exact: neighbours are found in float32, their distances computed in float64. Sun et al., arXiv 2204.06507.
    """

    reference: ClassVar = Reference(
        "Sun et al.", 2022, arxiv="2204.06507", title="Out-of-Distribution Detection with Deep Nearest Neighbors"
    )
    k: int = 50
    bank: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "bank"):
            if getattr(self, name) < 1:
                raise ValueError(f"KNN: {name} must be at least 1, got {getattr(self, name)}")

    def learner(self, num_classes: int) -> "Bank":
        """See `Detector.learner`."""
        return Bank(self.bank, self.seed)

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        readings = seen(look.readings, wanted_by="KNN()")
        return look.averaged(
            [distance(r.features, own["bank"], k=self.k) for r, own in zip(readings, learned, strict=True)]
        )


class Bank:
    """Keeps features of some training rows."""

    def __init__(self, size: int, seed: int) -> None:
        self.sample = Sample(size, seed)

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """See `Learner.add`."""
        self.sample.add(F.normalize(reading.features.float(), dim=-1))

    def value(self) -> dict[str, Tensor]:
        """bank (row, feature): unit vectors in float32."""
        return {"bank": self.sample.value()[0]}


def distance(
    z: Float[Tensor, "*batch feature"], bank: Float[Tensor, "row feature"], *, k: int
) -> Float[Tensor, "*batch"]:
    """The distance to the k-th nearest row of the bank."""
    rows = F.normalize(z.flatten(0, -2).to(bank.dtype), dim=-1)
    found = []
    for part in rows.split(max(1, CHUNK // len(bank))):
        neighbour = (part @ bank.mT).topk(min(k, len(bank)), dim=-1).indices[:, -1]
        found.append((part.double() - bank[neighbour].double()).square().sum(-1).sqrt())
    return torch.cat(found).unflatten(0, z.shape[:-1])
