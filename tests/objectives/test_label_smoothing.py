"""Smoothed cross-entropy against torch's own, and the ends of its range."""

import pytest
import torch
import torch.nn.functional as F
from networks import network
from torch.testing import assert_close

from levelhead.forward import Forward, network_loss
from levelhead.objectives.label_smoothing import LabelSmoothing
from levelhead.types import Batch

X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def forward() -> Forward:
    torch.manual_seed(0)
    return Forward(network(), Batch(X, Y, torch.arange(6)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_it_is_torchs_label_smoothing(smoothing):
    expected = F.cross_entropy(forward().outputs[0], Y, label_smoothing=smoothing)
    assert_close(LabelSmoothing(smoothing)(network_loss, forward()), expected)


def test_soft_labels_are_smoothed_too():
    soft = torch.rand(6, 3).softmax(-1)
    moved = LabelSmoothing(0.3).smoothed(soft, 3)
    assert_close(moved, 0.7 * soft + 0.1)
    assert_close(moved.sum(-1), torch.ones(6))


def test_the_rate_is_checked():
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\)"):
        LabelSmoothing(1.0)
