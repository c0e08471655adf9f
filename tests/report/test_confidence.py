"""Accuracy above a confidence, against the metric that prints it."""

import torch
from report.runs import PLAIN, classification

from levelhead.beliefs import ClassBeliefs
from levelhead.metrics.ranking import accuracy_above
from levelhead.report.confidence import SEEN, THRESHOLDS, confidence_curves, curve
from levelhead.report.evidence import read


def test_a_curve_is_the_accuracy_above_each_threshold_over_all_seeds(tmp_path):
    contender = read(classification(tmp_path, (PLAIN,), seeds=(0, 1), shifts=(), rows=100))[0].done[0]
    stored = list(contender.beliefs(ClassBeliefs, ["test"]))
    log_probs, y = torch.cat([b.log_probs for b in stored]), torch.cat([b.y for b in stored])
    expected = accuracy_above(log_probs, y, thresholds=THRESHOLDS)
    points = curve(contender, ["test"])
    kept = [k for k, rows in enumerate(expected.num_rows.tolist()) if rows >= SEEN]
    assert [p.threshold for p in points] == [THRESHOLDS[k] for k in kept]
    torch.testing.assert_close(
        torch.tensor([p.accuracy for p in points]).double(), expected.accuracy[kept], rtol=1e-5, atol=1e-6
    )
    shares = expected.num_rows[kept] / 200
    torch.testing.assert_close(torch.tensor([p.share for p in points]), shares, rtol=1e-5, atol=1e-6)


def test_nothing_stored_is_no_curve(tmp_path):
    contender = read(classification(tmp_path, (PLAIN,), seeds=(0,), shifts=(), rows=40))[0].done[0]
    assert curve(contender, ["shift-fog-3"]) == []


def test_counts_stand_beside_accuracies(tmp_path):
    (evidence,) = read(classification(tmp_path, (PLAIN,), seeds=(0,), severities=(1, 5), rows=60))
    made = confidence_curves(evidence)
    for heading in ("Accuracy on clean test rows, %", "Share of the clean test rows, %", "at severity 5, %"):
        assert heading in made
    points = curve(evidence.done[0], ["test"])
    shares = [point.share for point in points]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
