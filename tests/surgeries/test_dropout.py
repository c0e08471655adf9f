"""Dropout stands where it is asked for, draws in training, and leaves prediction alone."""

import pytest
import torch
from contracts.styles import TASK, made
from torch import nn
from torch.testing import assert_close

from levelhead.surgeries.dropout import Dropout

X = TASK.test.x / 255


def test_prediction_is_untouched_and_training_is_not():
    before = made("mlp").eval()
    after = Dropout(p=0.5)(before)
    assert_close(after(X), before(X))
    assert after.num_samples == 1
    assert not after.stochastic
    after.train()
    assert not torch.allclose(after(X), after(X))


def test_layers_are_all_but_the_first():
    count = {where: len(Dropout(p=0.1, where=where)(made("lenet")).layers(nn.Dropout)) for where in ("head", "layers")}
    assert count == {"head": 1, "layers": 4}  # two convolutions, two hidden layers, the head: five, but the first


@pytest.mark.parametrize("changes", [{"p": 1.0}, {"where": "everywhere"}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="Dropout: "):
        Dropout(**changes)
