"""Metrics beside torch-uncertainty's: equal where the definitions are; the difference is stated where they are not."""

import pytest
import torch

from levelhead.metrics.calibration import classwise_ece, ece
from levelhead.metrics.classification import brier, nll
from levelhead.metrics.diversity import disagreement
from levelhead.metrics.ranking import augrc, aurc, fpr95, risk_at_coverage
from levelhead.metrics.rows import top_label
from levelhead.metrics.selective import coverage_at_risk
from levelhead.metrics.smooth_calibration import smooth_ece

theirs = pytest.importorskip("torch_uncertainty.metrics", reason="needs torch-uncertainty: make test-interop")

pytestmark = pytest.mark.interop

GENERATOR = torch.Generator().manual_seed(0)
LOG_PROBS = (2 * torch.randn(800, 6, generator=GENERATOR)).log_softmax(-1)
Y = torch.multinomial(LOG_PROBS.exp(), 1, generator=GENERATOR)[:, 0]
CONFIDENCE, RIGHT = top_label(LOG_PROBS, Y)
MEMBERS = torch.randn(4, 300, 6, generator=GENERATOR).log_softmax(-1)


def measured(metric, *rows):
    metric.update(*rows)
    return float(metric.compute())


@pytest.mark.parametrize(
    "name, settings, ours, tolerance",
    [
        ("CategoricalNLL", {}, lambda: nll(LOG_PROBS, Y), 1e-6),
        ("BrierScore", {"num_classes": 6}, lambda: brier(LOG_PROBS, Y), 1e-6),
        (
            "CalibrationError",
            {"task": "multiclass", "num_bins": 15, "num_classes": 6},
            lambda: ece(LOG_PROBS, Y),
            1e-6,
        ),
        ("ClasswiseCalibrationError", {"num_bins": 15, "num_classes": 6}, lambda: classwise_ece(LOG_PROBS, Y), 1e-6),
        # a finite mesh of theirs against ours
        ("SmoothCalibrationError", {"kernel_type": "reflected"}, lambda: smooth_ece(LOG_PROBS, Y), 2e-3),
        # the trapezoid rule of theirs against the rectangle rule
        ("AURC", {}, lambda: aurc(-CONFIDENCE, ~RIGHT), 1e-4),
        ("AUGRC", {}, lambda: augrc(-CONFIDENCE, ~RIGHT), 1e-4),
        ("RiskAt80Cov", {}, lambda: risk_at_coverage(-CONFIDENCE, ~RIGHT, coverage=0.8), 1e-6),
        ("CovAt5Risk", {}, lambda: coverage_at_risk(-CONFIDENCE, ~RIGHT, risk=0.05).coverage, 1e-6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scores_of_classes(name, settings, ours, tolerance):
    assert float(ours()) == pytest.approx(
        measured(getattr(theirs, name)(**settings), LOG_PROBS.exp(), Y), abs=tolerance
    )


def test_members_and_rankings():
    assert float(disagreement(MEMBERS)) == pytest.approx(
        measured(theirs.Disagreement(), MEMBERS.exp().transpose(0, 1)), abs=1e-6
    )
    score = -CONFIDENCE
    assert float(fpr95(score, ~RIGHT)) == pytest.approx(
        measured(theirs.FPR95(pos_label=1), score, (~RIGHT).long()), abs=1e-6
    )
