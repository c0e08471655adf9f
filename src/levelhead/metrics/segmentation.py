"""Maps of labels: overlap of regions, and calibration at their borders. Sites count as rows; `void` ones do not."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.calibration import NUM_BINS, ece
from levelhead.metrics.streaming import CalibrationError, Totals
from levelhead.types import Scalar


def confusion(
    predicted: Int[Tensor, "image *site"], y: Int[Tensor, "image *site"], *, num_classes: int, void: int | None = None
) -> Int[Tensor, "image class class"]:
    """Sites of each image by label (row) and predicted label (column)."""
    kept = torch.ones_like(y, dtype=torch.bool) if void is None else y != void
    for name, labels in (("y", y), ("predicted", predicted)):
        seen = labels[kept]
        if len(seen) and (int(seen.min()) < 0 or int(seen.max()) >= num_classes):
            raise ValueError(f"{name}: labels must lie in 0 ... {num_classes - 1}; name those that do not count: void=")
    image = torch.arange(len(y), device=y.device).reshape(-1, *[1] * (y.ndim - 1)).expand_as(y)
    index = ((image * num_classes + y) * num_classes + predicted)[kept]
    counts = torch.zeros(len(y) * num_classes**2, dtype=torch.long, device=y.device)
    counts = counts.index_add(0, index, torch.ones_like(index))
    return rearrange(counts, "(image true guess) -> image true guess", true=num_classes, guess=num_classes)


def iou(counts: Int[Tensor, "*image class class"]) -> Float[Tensor, "*image class"]:
    """Intersection over union of each class, in [0, 1]; NaN where a class is neither labelled nor predicted."""
    hit = counts.diagonal(dim1=-2, dim2=-1)
    return hit / (counts.sum(-1) + counts.sum(-2) - hit).double()


class MeanIoU(NamedTuple):
    """Two means that differ: over classes of the pooled sites, and over images of their own means over classes."""

    pooled: Scalar
    per_image: Scalar


def mean_iou(
    predicted: Int[Tensor, "image *site"], y: Int[Tensor, "image *site"], *, num_classes: int, void: int | None = None
) -> MeanIoU:
    """Mean IoU, in [0, 1]: classes that an image (or all) neither has nor is told are left out of the mean."""
    counts = confusion(predicted, y, num_classes=num_classes, void=void)
    return MeanIoU(iou(counts.sum(0)).nanmean(), iou(counts).nanmean(-1).nanmean())


def boundary_band(y: Int[Tensor, "image h w"], *, width: int = 2, void: int | None = None) -> Bool[Tensor, "image h w"]:
    """Sites within `width` (in both directions) of a site with another label; void labels make no border."""
    if width < 1:
        raise ValueError(f"width: wants at least 1 site, got {width}")
    labels = rearrange(y, "image h w -> image 1 h w").double()
    counts = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void

    def highest(values: Tensor) -> Tensor:
        return F.max_pool2d(values, 2 * width + 1, stride=1, padding=width)

    top = highest(torch.where(counts, labels, -torch.inf))
    bottom = -highest(torch.where(counts, -labels, -torch.inf))
    return rearrange((top > bottom) & counts, "image 1 h w -> image h w")


def boundary_ece(
    log_probs: Float[Tensor, "image h w class"],
    y: Int[Tensor, "image h w"],
    *,
    width: int = 2,
    bins: int = NUM_BINS,
    void: int | None = None,
) -> Scalar:
    """ECE of the sites in the `boundary_band` alone, where segmentations err; raises ValueError without a border."""
    band = boundary_band(y, width=width, void=void)
    return ece(log_probs[band], y[band], bins=bins)


class SegmentationScores(NamedTuple):
    """Of all sites so far; NaN for the border where there was none."""

    accuracy: Scalar
    nll: Scalar
    ece: Scalar
    boundary_ece: Scalar
    iou: MeanIoU


class Segmentation(Totals):
    """Accuracy, NLL, ECE, border ECE and mean IoU of maps, streamed by sums: no site is kept."""

    def __init__(self, num_classes: int, *, void: int | None = None, bins: int = NUM_BINS, width: int = 2) -> None:
        self.num_classes, self.void, self.width = num_classes, void, width
        self._all = CalibrationError(bins=bins, void=void)
        self._band = CalibrationError(bins=bins)
        self.totals = {
            "counts": torch.zeros(num_classes, num_classes, dtype=torch.float64),
            **{name: torch.zeros((), dtype=torch.float64) for name in ("loss", "images", "image_iou")},
            **{f"all_{name}": total for name, total in self._all.totals.items()},
            **{f"band_{name}": total for name, total in self._band.totals.items()},
        }

    def settings(self) -> tuple[object, ...]:
        """See `Totals`."""
        return (self.num_classes, self.void, self.width, self._all.bins)

    def update(self, log_probs: Float[Tensor, "image h w class"], y: Int[Tensor, "image h w"]) -> None:
        """Add whole images; those whose labels are all void add nothing."""
        kept = torch.ones_like(y, dtype=torch.bool) if self.void is None else y != self.void
        some = kept.flatten(1).any(-1)
        if not bool(some.any()):
            return
        log_probs, y, kept = log_probs[some], y[some], kept[some]
        counts = confusion(log_probs.argmax(-1), y, num_classes=self.num_classes, void=self.void)
        band = boundary_band(y, width=self.width, void=self.void)
        for part in (self._all, self._band):
            part.reset()
        self._all.update(log_probs, y)
        if bool(band.any()):
            self._band.update(log_probs[band], y[band])
        self._add(
            counts=counts.sum(0),
            loss=-log_probs[kept].double().gather(-1, y[kept].long()[:, None]).sum(),
            images=some.sum(),
            image_iou=iou(counts).nanmean(-1).sum(),
            **{f"all_{name}": total for name, total in self._all.totals.items()},
            **{f"band_{name}": total for name, total in self._band.totals.items()},
        )

    def compute(self) -> SegmentationScores:
        """The scores of all images so far."""
        counts = self.totals["counts"]
        if not bool(counts.sum() > 0):
            raise ValueError("compute: no site has been added yet")
        sites = counts.sum()
        return SegmentationScores(
            accuracy=counts.diagonal().sum() / sites,
            nll=self.totals["loss"] / sites,
            ece=self._error("all"),
            boundary_ece=self._error("band"),
            iou=MeanIoU(iou(counts.long()).nanmean(), self.totals["image_iou"] / self.totals["images"]),
        )

    def _error(self, which: str) -> Scalar:
        part = CalibrationError(bins=self._all.bins)
        part.totals = {name: self.totals[f"{which}_{name}"] for name in part.totals}
        found = part.tables()[0]
        return found.expected_error() if int(found.count.sum()) else found.gap.new_full((), torch.nan)
