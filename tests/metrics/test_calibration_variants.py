from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from torch.testing import assert_close
from torchmetrics.functional.classification import binary_calibration_error

from levelhead.metrics.calibration import adaptive_classwise_error, classwise_ece, ece, reliability
from levelhead.metrics.calibration_variants import (
    debiased_ece,
    mce,
    positive_ece,
    rmsce,
    sweep_ece,
    thresholded_error,
    top_k_ece,
    two_class_log_probs,
)


def beliefs(n=400, num_classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (2 * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def test_ece_rmsce_mce_are_in_order_and_of_one_table():
    log_probs, y = beliefs()
    table = reliability(log_probs, y)
    assert float(ece(log_probs, y)) <= float(rmsce(log_probs, y)) <= float(mce(log_probs, y))
    assert_close(rmsce(log_probs, y), (table.share * table.gap.square()).sum().sqrt())
    kept = table.gap.abs()[table.count >= 30]
    assert_close(mce(log_probs, y, min_count=30), kept.max())
    assert float(mce(log_probs, y)) > float(kept.max())  # a small bin is the worst one here


def test_one_row_alone_sets_mce_unless_a_minimum_is_asked_for():
    p = torch.tensor([[0.9, 0.1]] * 10 + [[0.55, 0.45]], dtype=torch.float64)
    y = torch.tensor([0] * 9 + [1] + [1])
    assert float(mce(p.log(), y)) == pytest.approx(0.55)
    assert float(mce(p.log(), y, min_count=2)) == pytest.approx(0.0, abs=1e-12)
    assert float(mce(p.log(), y, min_count=100)) == 0


def test_debiased_error_has_a_sign_and_a_root():
    found = [debiased_ece(*beliefs(seed=seed)) for seed in range(20)]
    assert min(float(one.squared) for one in found) < 0 < max(float(one.squared) for one in found)
    for one in found:
        assert float(one.root) == pytest.approx(max(0.0, float(one.squared)) ** 0.5)


def test_top_k_pools_all_pairs():
    log_probs, y = beliefs()
    assert_close(top_k_ece(log_probs, y, k=1), ece(log_probs, y))
    p, label = log_probs.exp().topk(3, dim=-1)
    pairs = [
        (float(c), float(j == t))
        for row, labels, t in zip(p, label, y, strict=True)
        for c, j in zip(row, labels, strict=True)
    ]
    total = 0.0
    for b in range(15):
        inside = [(c, h) for c, h in pairs if b / 15 < c <= (b + 1) / 15 or (b == 0 and c == 0)]
        total += abs(sum(h - c for c, h in inside)) / len(pairs)
    assert float(top_k_ece(log_probs, y, k=3)) == pytest.approx(total)
    with pytest.raises(ValueError, match="k:"):
        top_k_ece(log_probs, y, k=7)


def test_thresholds():
    log_probs, y = beliefs()
    assert_close(thresholded_error(log_probs, y, threshold=0.0), adaptive_classwise_error(log_probs, y))
    assert_close(thresholded_error(log_probs, y, threshold=0.0, adaptive=False), classwise_ece(log_probs, y))
    p = log_probs.exp()
    by_hand = []
    for k in range(6):
        kept = (p[:, k] >= 0.2).nonzero()[:, 0]
        kept = kept[p[kept, k].argsort()]
        ends = [-(-len(kept) * b // 4) for b in range(5)]
        gaps = [abs(float((y[kept[i:j]] == k).double().mean() - p[kept[i:j], k].mean())) for i, j in pairwise(ends)]
        by_hand.append(sum(gaps) / 4)
    assert float(thresholded_error(log_probs, y, threshold=0.2, bins=4)) == pytest.approx(sum(by_hand) / 6)
    assert thresholded_error(p.log() * 0 - torch.tensor(6.0).log(), y, threshold=0.5).isnan()
    with pytest.raises(ValueError, match="threshold"):
        thresholded_error(log_probs, y, threshold=1.0)


def slow_sweep(rows, norm):
    """The definition with lists: equal-mass bins, whose ends move to the end of a block of ties."""
    rows = sorted(rows)
    n, chosen = len(rows), [rows]
    for bins in range(2, n + 1):
        ends, pieces = [0], []
        for b in range(1, bins + 1):
            end = -(-n * b // bins)
            while end < n and rows[end][0] == rows[end - 1][0]:
                end += 1
            ends.append(max(end, ends[-1]))
        pieces = [rows[i:j] for i, j in pairwise(ends) if j > i]
        shares = [sum(h for _, h in piece) / len(piece) for piece in pieces]
        if any(later < earlier - 1e-15 for earlier, later in pairwise(shares)):
            break
        chosen = pieces
    gaps = [(len(piece) / n, abs(sum(h - c for c, h in piece) / len(piece))) for piece in chosen]
    error = sum(w * g for w, g in gaps) if norm == "l1" else sum(w * g * g for w, g in gaps) ** 0.5
    return error, len(chosen)


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.5, 0.6, 0.75, 0.75, 0.9, 1.0]) | st.floats(0.5, 1), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    norm=st.sampled_from(["l1", "l2"]),
)
def test_sweep_against_lists(rows, norm):
    p = torch.tensor([c for c, _ in rows], dtype=torch.float64)
    log_probs = torch.stack([p, 1 - p], dim=-1).log()
    # the top label of an even row is the first class
    y = torch.tensor([0 if hit else 1 for _, hit in rows])
    confidence = log_probs.max(-1).values.exp().clamp_max(1.0).tolist()
    error, bins = slow_sweep([(c, float(hit)) for c, (_, hit) in zip(confidence, rows, strict=True)], norm)
    found = sweep_ece(log_probs, y, norm=norm)
    assert float(found.error) == pytest.approx(error, abs=1e-12)
    assert found.bins == bins


def test_positive_class_and_top_label_are_two_questions():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(500, generator=generator, dtype=torch.float64)
    positive = torch.rand(500, generator=generator, dtype=torch.float64) < p**2
    ours = positive_ece(p, positive)
    assert_close(ours, binary_calibration_error(p, positive.long(), n_bins=15).double(), atol=1e-6, rtol=0)
    share, mean = calibration_curve(positive.numpy(), p.numpy(), n_bins=15)
    counts = torch.histc(p, 15, 0, 1).numpy()
    assert float(ours) == pytest.approx((counts * abs(share - mean)).sum() / 500)
    log_probs = two_class_log_probs(p)
    assert_close(classwise_ece(log_probs, positive.long()), ours)
    assert abs(float(ece(log_probs, positive.long()) - ours)) > 0.01
    assert float(positive_ece(p, positive, adaptive=True)) > 0.1


def test_certain_positives_have_log_probs():
    found = two_class_log_probs(torch.tensor([0.0, 1.0, 0.25]))
    assert_close(found.exp(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.75, 0.25]]).double())
    assert float(positive_ece(torch.tensor([0.0, 1.0]), torch.tensor([False, True]))) == 0
    for bad in (torch.tensor([1.2]), torch.tensor([torch.nan]), torch.empty(0)):
        with pytest.raises(ValueError, match="positive_prob"):
            two_class_log_probs(bad)
