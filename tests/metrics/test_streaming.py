import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.testing import assert_close

from levelhead.metrics.calibration import classwise_ece, ece, reliability
from levelhead.metrics.calibration_variants import debiased_ece, mce, positive_ece, rmsce
from levelhead.metrics.classification import accuracy, brier, brier_decomposition, nll
from levelhead.metrics.ranking import accuracy_above
from levelhead.metrics.score_histogram import ScoreHistogram
from levelhead.metrics.segmentation import Segmentation
from levelhead.metrics.streaming import CalibrationError, ConfidenceCurve, StreamedScores

VOID = 255


def labelled(n=500, num_classes=4, seed=0, void_share=0.0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (2 * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    y = torch.randint(num_classes, (n,), generator=generator)
    y[torch.rand(n, generator=generator) < void_share] = VOID
    return log_probs, y


def fed(stream, log_probs, y, sizes=(37, 200, 1)):
    """Three pieces merged, each of batches of another size; the second piece is empty where the rows run out."""
    pieces = [type(stream)(*arguments(stream)[0], **arguments(stream)[1]) for _ in sizes]
    for piece, size, rows in zip(pieces, sizes, torch.arange(len(y)).tensor_split(3), strict=True):
        for batch in rows.split(size):
            piece.update(log_probs[batch], y[batch])
    for piece in pieces:
        stream.merge(piece)
    return stream


def arguments(stream):
    """How to make another one."""
    if isinstance(stream, StreamedScores):
        return (stream.num_classes,), {"void": stream.void}
    if isinstance(stream, ConfidenceCurve):
        return (stream.thresholds,), {"void": stream.void}
    names = ("bins", "norm", "target", "num_classes", "min_count", "void")
    return (), {name: getattr(stream, name) for name in names}


@pytest.mark.parametrize("void", [None, VOID])
def test_scores_are_those_of_all_rows_at_once(void):
    log_probs, y = labelled(void_share=0.3 if void else 0.0)
    found = fed(StreamedScores(4, void=void), log_probs, y).compute()
    for name, metric in (("accuracy", accuracy), ("nll", nll), ("brier", brier)):
        assert_close(getattr(found, name), metric(log_probs, y, void=void), rtol=0, atol=1e-12)
    whole = brier_decomposition(log_probs, y, void=void)
    for one, other in zip(found.decomposition, whole, strict=True):
        assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings, metric",
    [
        ({}, ece),
        ({"bins": 7}, lambda p, y, void: ece(p, y, bins=7, void=void)),
        ({"norm": "l2"}, rmsce),
        ({"norm": "max", "min_count": 20}, lambda p, y, void: mce(p, y, min_count=20, void=void)),
        ({"norm": "debiased"}, lambda p, y, void: debiased_ece(p, y, void=void).squared),
        ({"target": "classwise", "num_classes": 4}, classwise_ece),
    ],
    ids=("top label", "seven bins", "rms", "largest", "debiased", "classwise"),
)
def test_calibration_errors_are_those_of_all_rows_at_once(settings, metric):
    log_probs, y = labelled(void_share=0.2)
    found = fed(CalibrationError(void=VOID, **settings), log_probs, y)
    assert_close(found.compute(), metric(log_probs, y, void=VOID), rtol=0, atol=1e-12)


def test_the_positive_class_streams_too():
    log_probs, y = labelled(num_classes=2)
    found = fed(CalibrationError(target="positive"), log_probs, y).compute()
    assert_close(found, positive_ece(log_probs[:, 1].exp(), y == 1), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="2 classes"):
        CalibrationError(target="positive").update(*labelled())


def test_tables_and_curves():
    log_probs, y = labelled()
    table = fed(CalibrationError(), log_probs, y).tables()[0]
    assert torch.equal(table.count, reliability(log_probs, y).count)
    found, whole = fed(ConfidenceCurve(), log_probs, y).compute(), accuracy_above(log_probs, y)
    assert torch.equal(found.num_rows, whole.num_rows)
    assert_close(found.accuracy, whole.accuracy, equal_nan=True)


def test_settings_must_agree_and_rows_must_come():
    with pytest.raises(ValueError, match="merge"):
        CalibrationError().merge(CalibrationError(bins=3))
    with pytest.raises(ValueError, match="merge"):
        StreamedScores(3).merge(CalibrationError())
    for empty in (CalibrationError(), StreamedScores(3), ScoreHistogram(), Segmentation(3)):
        with pytest.raises(ValueError, match=r"no row|no site|both kinds"):
            empty.compute()
    with pytest.raises(ValueError, match="num_classes"):
        CalibrationError(target="classwise")
    with pytest.raises(ValueError, match="num_classes"):
        CalibrationError(num_classes=3)


def test_all_void_adds_nothing_and_reset_forgets():
    log_probs, y = labelled(10)
    for stream in (CalibrationError(void=VOID), StreamedScores(4, void=VOID), ConfidenceCurve(void=VOID)):
        stream.update(log_probs, torch.full_like(y, VOID))
        assert all(float(total.abs().sum()) == 0 for total in stream.totals.values())
        stream.update(log_probs, y)
        stream.reset()
        assert all(float(total.abs().sum()) == 0 for total in stream.totals.values())


def _summed(other: int, store: str, rows: slice) -> list[torch.Tensor]:
    """Brier score and ECE that one of two processes sees, which was given some rows; `other` is the other's rank."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=1 - other, world_size=2)
    log_probs, y = labelled()
    scores, error = StreamedScores(4, void=VOID), CalibrationError(void=VOID)
    for stream in (scores, error):
        stream.update(log_probs[rows], y[rows])
        stream.all_reduce()
    torch.distributed.destroy_process_group()
    return [scores.compute().brier, error.compute()]


def test_processes_add_up(tmp_path):
    store = str(tmp_path / "store")
    child = torch.multiprocessing.spawn(_summed, (store, slice(200)), nprocs=1, join=False)
    seen = _summed(1, store, slice(200, None))
    child.join()
    log_probs, y = labelled()
    assert_close(seen, [brier(log_probs, y), ece(log_probs, y)], rtol=0, atol=1e-12)
