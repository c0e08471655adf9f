"""The detector on histories as they are seen: healthy, noisy, collapsing at once or over epochs."""

import pytest
import torch

from levelhead.adversarial.overfitting import collapse_epoch, detect_catastrophic_overfitting, hits

HEALTHY = [0.21, 0.27, 0.31, 0.30, 0.35, 0.37, 0.36, 0.38]
SUDDEN = [0.21, 0.30, 0.34, 0.36, 0.02, 0.0, 0.0]
SLOW = [0.21, 0.30, 0.36, 0.22, 0.09, 0.01]
RECOVERS = [0.30, 0.36, 0.05, 0.33, 0.36]


@pytest.mark.parametrize(
    "history, expected",
    [([], None), ([0.9], None), (HEALTHY, None), (SUDDEN, 4), (SLOW, None), (RECOVERS, 2), (HEALTHY + SUDDEN[3:], 9)],
)
def test_a_fall_of_twenty_points_between_two_epochs_is_a_collapse(history: list[float], expected: int | None) -> None:
    assert detect_catastrophic_overfitting(history) == expected


def test_the_drop_must_be_exceeded() -> None:
    assert detect_catastrophic_overfitting([0.75, 0.5], drop=0.25) is None
    assert detect_catastrophic_overfitting([0.75, 0.5], drop=0.24) == 1


@pytest.mark.parametrize(
    "robust, trained, expected",
    [
        ([], [], None),
        (HEALTHY, [a + 0.1 for a in HEALTHY], None),
        (SUDDEN, [0.3, 0.4, 0.45, 0.5, 0.9, 0.95, 0.99], 4),
        (SLOW, [0.3, 0.4, 0.45, 0.6, 0.8, 0.99], 4),
        (SUDDEN, [0.3, 0.4, 0.45, 0.5, 0.1, 0.1, 0.1], None),  # a network that unlearns everything overfits nothing
    ],
)
def test_a_slow_collapse_is_one_too(robust: list[float], trained: list[float], expected: int | None) -> None:
    assert collapse_epoch(robust, trained) == expected


def test_histories_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"accuracies in \[0, 1\], got \[35.0, 2.0\]"):
        detect_catastrophic_overfitting([35.0, 2.0])
    with pytest.raises(ValueError, match=r"drop wants a share of accuracy in \(0, 1\), got 20"):
        detect_catastrophic_overfitting([0.3], drop=20)
    with pytest.raises(ValueError, match="2 epochs of robust accuracy, 1 of single-step"):
        collapse_epoch([0.3, 0.3], [0.3])


def test_hits_are_counted_for_each_member_and_not_at_void_sites() -> None:
    y = torch.tensor([[0, 1, 2], [2, 255, 1]])
    outputs = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1], [2, 0, 1]], [[1, 1, 2], [2, 0, 0]]]), 3).float()
    assert [int(n) for n in hits(outputs, y, void=255)] == [7, 10]
    right, counted = hits(torch.eye(3)[None], torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.2, 0.3], [0.0, 0.0, 1.0]]))
    assert (int(right), int(counted)) == (2, 3)
