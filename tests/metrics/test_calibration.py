import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torchmetrics.functional.classification import multiclass_calibration_error

from levelhead.metrics.calibration import (
    adaptive_classwise_error,
    adaptive_ece,
    classwise_ece,
    ece,
    equal_mass_edges,
    equal_width_edges,
    noise_floor,
    overconfidence,
    reliability,
    reliability_table,
)


def beliefs(n: int = 500, num_classes: int = 5, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Confidences, and labels drawn from them: calibrated."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = (scale * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def binned_error(confidence: list[float], hit: list[float], bins: int, norm: str = "l1") -> float:
    """The definition as a loop: bins (lower, upper], 0 in the first."""
    rows: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for c, h in zip(confidence, hit, strict=True):
        place = next(b for b in range(bins) if c <= float(equal_width_edges(bins)[b + 1]))
        rows[place].append((c, h))
    gaps = [(len(r), abs(sum(h for _, h in r) / len(r) - sum(c for c, _ in r) / len(r))) for r in rows if r]
    if norm == "max":
        return max(gap for _, gap in gaps)
    power = {"l1": 1, "l2": 2}[norm]
    return float(sum(n * gap**power for n, gap in gaps) / len(hit)) ** (1 / power)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_binned_errors_agree_with_torchmetrics_and_loops(norm: str, bins: int) -> None:
    log_probs, y = beliefs()
    table = reliability(log_probs, y, bins=bins)
    ours = {"l1": table.expected_error, "l2": table.root_mean_square_error, "max": table.maximum_error}[norm]()
    theirs = multiclass_calibration_error(log_probs.exp(), y, num_classes=5, n_bins=bins, norm=norm)
    confidence, label = log_probs.exp().max(-1)
    assert_close(ours, theirs.double(), rtol=0, atol=1e-6)
    assert float(ours) == pytest.approx(binned_error(confidence.tolist(), (label == y).double().tolist(), bins, norm))


def test_confidence_of_exactly_one_counts_in_the_last_bin() -> None:
    """torchmetrics puts it in a bin of its own, so that it cannot balance its neighbours in (14/15, 1)."""
    p = torch.tensor([[1.0, 0.0], [0.95, 0.05]])
    y = torch.tensor([1, 0])
    assert float(ece(p.log(), y)) == pytest.approx(abs(0.5 - 0.975))
    theirs = multiclass_calibration_error(p, y, num_classes=2, n_bins=15)
    assert float(theirs) == pytest.approx(0.525)  # its known fault; when this fails, it was mended there


def test_edges_belong_to_the_bin_below() -> None:
    table = reliability_table(
        torch.tensor([0.0, 0.2, 0.2000001, 1.0], dtype=torch.float64), torch.ones(4).bool(), edges=equal_width_edges(5)
    )
    assert table.count.tolist() == [2, 1, 0, 0, 1]
    assert math.isnan(float(table.accuracy[2]))
    assert float(table.gap[2]) == 0


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.0, 1 / 15, 0.5, 14 / 15, 1.0]) | st.floats(0, 1), st.booleans()), min_size=1
    ),
    bins=st.integers(1, 20),
)
def test_binned_invariants(rows: list[tuple[float, bool]], bins: int) -> None:
    confidence = torch.tensor([c for c, _ in rows], dtype=torch.float64)
    hit = torch.tensor([h for _, h in rows])
    table = reliability_table(confidence, hit, edges=equal_width_edges(bins))
    assert int(table.count.sum()) == len(rows)
    expected, rms, worst = table.expected_error(), table.root_mean_square_error(), table.maximum_error()
    assert 0 <= expected <= rms + 1e-12 <= worst + 2e-12 <= 1 + 3e-12
    assert float(expected) == pytest.approx(binned_error(confidence.tolist(), hit.double().tolist(), bins), abs=1e-12)
    mean_gap = (hit.double().mean() - confidence.mean()).abs()
    assert expected >= mean_gap - 1e-12
    if bins == 1:
        assert_close(expected, mean_gap, rtol=0, atol=1e-12)
    # equal mass: every bin holds a row, ties are together
    mass = reliability_table(confidence, hit, edges=equal_mass_edges(confidence, bins=bins))
    assert int(mass.count.sum()) == len(rows)
    assert (mass.count > 0).all()
    assert len(mass.count) <= bins


def test_streamed_tables_equal_one_shot() -> None:
    log_probs, y = beliefs(1000)
    order = torch.randperm(1000)
    parts = [reliability(log_probs[rows], y[rows]) for rows in order.split(37)]
    total = sum(parts[1:], start=parts[0])
    assert_close(total.expected_error(), ece(log_probs, y), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="same bin edges"):
        total + reliability(log_probs, y, bins=3)


def test_one_hot_is_zero_or_one() -> None:
    y = torch.arange(4)
    certain = torch.eye(4).log()
    for metric in (ece, adaptive_ece):
        assert float(metric(certain, y)) == 0
        assert float(metric(certain, y.roll(1))) == 1


def test_infinite_temperature_leaves_the_base_rate() -> None:
    log_probs, y = beliefs()
    flat = (1e-9 * log_probs).log_softmax(-1)
    accuracy = (log_probs.argmax(-1) == y).double().mean()
    assert float(ece(flat, y)) == pytest.approx(abs(float(accuracy) - 1 / 5), abs=1e-6)


def test_adaptive_bins_hold_equally_many() -> None:
    log_probs, y = beliefs(100)
    confidence, label = log_probs.exp().max(-1)
    table = reliability_table(confidence, label == y, edges=equal_mass_edges(confidence, bins=8))
    assert table.count.tolist() == [13, 12, 13, 12, 13, 12, 13, 12]
    order = confidence.argsort()
    parts = torch.split(order, table.count.tolist())
    gaps = [len(r) * abs(float((label == y)[r].double().mean() - confidence[r].mean())) for r in parts]
    assert float(adaptive_ece(log_probs, y, bins=8)) == pytest.approx(sum(gaps) / 100)


def test_classwise_errors_against_loops() -> None:
    log_probs, y = beliefs(300)
    y[y == 3] = 0  # a class without a label still counts
    p = log_probs.exp()
    widths = [binned_error(p[:, k].tolist(), (y == k).double().tolist(), 15) for k in range(5)]
    assert float(classwise_ece(log_probs, y)) == pytest.approx(sum(widths) / 5)
    masses = []
    for k in range(5):
        chunks = p[:, k].argsort().split(20)
        masses.append(sum(abs(float((y == k)[r].double().mean() - p[r, k].mean())) for r in chunks) / 15)
    assert float(adaptive_classwise_error(log_probs, y)) == pytest.approx(sum(masses) / 5)


def test_void_sites_do_not_count() -> None:
    log_probs, y = beliefs(60)
    labels = torch.where(torch.arange(60) % 7 == 0, 255, y)
    kept = labels != 255
    for metric in (ece, adaptive_ece, classwise_ece, adaptive_classwise_error):
        assert_close(
            metric(log_probs.reshape(4, 15, 5), labels.reshape(4, 15), void=255), metric(log_probs[kept], y[kept])
        )


def test_debiased_error_is_centred_on_calibrated_data() -> None:
    values, plain = [], []
    for seed in range(60):
        table = reliability(*beliefs(500, seed=seed))
        values.append(table.debiased_squared_error())
        plain.append(table.root_mean_square_error() ** 2)
    mean, error = torch.stack(values).mean(), torch.stack(values).std() / 60**0.5
    assert abs(float(mean)) < 2.5 * float(error)
    assert float(torch.stack(plain).mean()) > 10 * float(error)


def test_debiased_error_against_a_loop() -> None:
    confidence, hit = torch.tensor([0.1, 0.35, 0.4, 0.4, 0.9]).double(), torch.tensor([0, 1, 0, 0, 1]).bool()
    table = reliability_table(confidence, hit, edges=equal_width_edges(3))
    acc, conf = 1 / 3, (0.35 + 0.4 + 0.4) / 3  # the two bins of one row have no variance to subtract
    assert float(table.debiased_squared_error()) == pytest.approx(3 / 5 * ((acc - conf) ** 2 - acc * (1 - acc) / 2))


def test_noise_floor_is_what_calibrated_data_reads() -> None:
    log_probs, _ = beliefs(500)
    floor = noise_floor(ece, log_probs, generator=torch.Generator().manual_seed(1), draws=200)
    draws = torch.multinomial(log_probs.exp(), 200, replacement=True, generator=torch.Generator().manual_seed(7))
    seen = torch.stack([ece(log_probs, y) for y in draws.unbind(1)])
    assert abs(float(floor.mean - seen.mean())) < 4 * float(floor.std) / 200**0.5 * 2**0.5
    assert float(floor.std) == pytest.approx(float(seen.std()), rel=0.3)
    again = noise_floor(ece, log_probs, generator=torch.Generator().manual_seed(1), draws=200)
    assert_close(again.mean, floor.mean, rtol=0, atol=0)


@pytest.mark.parametrize("n, expected", [(500, 0.057), (2000, 0.028)])
def test_noise_floor_has_the_published_size(n: int, expected: float) -> None:
    """The sheet's measured floors for ten classes, on logits of its kind."""
    log_probs, _ = beliefs(n, 10)
    floor = noise_floor(partial(ece, bins=15), log_probs, generator=torch.Generator().manual_seed(0))
    assert float(floor.mean) == pytest.approx(expected, rel=0.1)


def test_sharpened_logits_are_overconfident() -> None:
    log_probs, y = beliefs(5000, 10)
    table = reliability((2 * log_probs).log_softmax(-1), y)
    assert (table.gap[table.count > 50] < 0).all()
    assert float(table.expected_error()) > 0.1


@pytest.mark.parametrize("call", [lambda: equal_width_edges(0), lambda: equal_mass_edges(torch.rand(3), bins=0)])
def test_no_bins_is_an_error(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="bins"):
        call()


def test_overconfidence_is_the_signed_sum_over_any_bins() -> None:
    log_probs, y = beliefs(n=300)
    sharp = (3 * log_probs).log_softmax(-1)
    for bins in (1, 10, 15):
        table = reliability(sharp, y, bins=bins)
        assert_close(overconfidence(sharp, y), -(table.share * table.gap).sum())
    assert float(overconfidence(sharp, y)) > 0.05
    assert abs(float(overconfidence(log_probs, y))) < 0.05
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    assert_close(overconfidence(sharp[order], y[order]), overconfidence(sharp, y))
    certain = torch.eye(5, dtype=torch.float64).log()[y]
    assert float(overconfidence(certain, y)) == float(ece(certain, y)) == 0.0
