import math

import pytest
import torch
from torch.testing import assert_close
from torchmetrics.functional.classification import multiclass_jaccard_index

from levelhead.metrics.calibration import ece
from levelhead.metrics.classification import accuracy, nll
from levelhead.metrics.segmentation import Segmentation, boundary_band, boundary_ece, confusion, iou, mean_iou

VOID = 255


def maps(images=5, size=9, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # blobs: a coarse map enlarged, so that there is an inside
    y = torch.randint(num_classes, (images, 3, 3), generator=generator).repeat_interleave(3, 1).repeat_interleave(3, 2)
    y[torch.rand(y.shape, generator=generator) < 0.1] = VOID
    log_probs = torch.randn(images, size, size, num_classes, generator=generator, dtype=torch.float64)
    return log_probs.log_softmax(-1), y


def test_overlap_against_sets_and_torchmetrics():
    log_probs, y = maps()
    predicted = log_probs.argmax(-1)
    per_image, pooled = [], torch.zeros(4, 2)
    for guess, true in zip(predicted, y, strict=True):
        found = []
        for k in range(4):
            kept = true != VOID
            inter = int(((guess == k) & (true == k) & kept).sum())
            union = int((((guess == k) | (true == k)) & kept).sum())
            pooled[k] += torch.tensor([inter, union])
            if union:
                found.append(inter / union)
        per_image.append(sum(found) / len(found))
    ours = mean_iou(predicted, y, num_classes=4, void=VOID)
    assert float(ours.pooled) == pytest.approx(float((pooled[:, 0] / pooled[:, 1]).mean()))
    assert float(ours.per_image) == pytest.approx(sum(per_image) / 5)
    theirs = multiclass_jaccard_index(predicted, y, num_classes=4, ignore_index=VOID)
    assert float(ours.pooled) == pytest.approx(float(theirs))
    assert int(confusion(predicted, y, num_classes=4, void=VOID).sum()) == int((y != VOID).sum())


def test_a_class_that_nobody_has_is_left_out():
    y = torch.zeros(1, 2, 2, dtype=torch.long)
    assert iou(confusion(y, y, num_classes=3))[0, 1:].isnan().all()
    assert float(mean_iou(y, y, num_classes=3).pooled) == 1
    with pytest.raises(ValueError, match="y:"):
        confusion(y, y + 7, num_classes=3)
    with pytest.raises(ValueError, match="predicted"):
        confusion(y - 1, y, num_classes=3)


@pytest.mark.parametrize("width", [1, 2])
def test_the_band_lies_within_reach_of_another_label(width):
    _, y = maps()
    found = boundary_band(y, width=width, void=VOID)
    for image in range(2):
        for row in range(9):
            for column in range(9):
                own = int(y[image, row, column])
                near = y[image, max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
                labels = set(near.flatten().tolist()) - {VOID}
                assert bool(found[image, row, column]) == (own != VOID and len(labels) > 1)
    with pytest.raises(ValueError, match="width"):
        boundary_band(y, width=0)


def test_border_calibration_is_that_of_the_band():
    log_probs, y = maps()
    band = boundary_band(y, void=VOID)
    assert 0 < int(band.sum()) < int((y != VOID).sum())
    assert_close(boundary_ece(log_probs, y, void=VOID), ece(log_probs[band], y[band]))
    with pytest.raises(ValueError, match="no row"):
        boundary_ece(log_probs, torch.zeros_like(y))


def test_streamed_maps_are_the_whole():
    log_probs, y = maps()
    y[3] = VOID  # an image without labels
    streams = [Segmentation(4, void=VOID) for _ in range(2)]
    streams[0].update(log_probs[:1], y[:1])
    streams[1].update(log_probs[1:4], y[1:4])
    streams[1].update(log_probs[3:4], y[3:4])
    streams[1].update(log_probs[4:], y[4:])
    streams[0].merge(streams[1])
    found = streams[0].compute()
    some = y.flatten(1).ne(VOID).any(-1)
    for name, metric in (("accuracy", accuracy), ("nll", nll), ("ece", ece)):
        assert_close(getattr(found, name), metric(log_probs, y, void=VOID), rtol=0, atol=1e-12)
    assert_close(found.boundary_ece, boundary_ece(log_probs, y, void=VOID), rtol=0, atol=1e-12)
    whole = mean_iou(log_probs.argmax(-1)[some], y[some], num_classes=4, void=VOID)
    assert_close(list(found.iou), list(whole))


def test_maps_without_a_border_have_no_error_there():
    stream = Segmentation(2)
    stream.update(torch.zeros(1, 4, 4, 2).log_softmax(-1), torch.zeros(1, 4, 4, dtype=torch.long))
    assert math.isnan(float(stream.compute().boundary_ece))
    assert float(stream.compute().accuracy) == 1
