from collections import OrderedDict

import pytest
import torch
from torch import nn

from levelhead.layers.foreign import dotted_name, exchange, last_linear, normalised
from levelhead.likelihood import Signature


def model() -> nn.Module:
    classifier = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    return nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), classifier=classifier))


def test_names():
    made = model()
    assert last_linear(made, spec="X") == "classifier.2"
    assert dotted_name(made, made.classifier[0]) == "classifier.0"
    with pytest.raises(ValueError, match="Linear that should be the head is not part of the Sequential"):
        dotted_name(made, nn.Linear(1, 1))
    with pytest.raises(ValueError, match="X: the ReLU has no linear layer"):
        last_linear(nn.ReLU(), spec="X")


def test_exchange():
    made, new = model(), nn.Linear(3, 7)
    exchange(made, "classifier.2", new)
    assert made.classifier[2] is new


def test_normalised_by_the_signature():
    made, x = model(), torch.rand(3, 1, 6, 6)
    network = normalised(made, head="classifier.2", signature=Signature((1, 6, 6), mean=(0.5,), std=(2.0,)))
    assert [name for name, _ in network.features.named_children()] == ["normalise", "model"]
    torch.testing.assert_close(network(x)[0], made((x - 0.5) / 2))


def test_normalised_as_published_weights_expect():
    made, x = model(), torch.rand(3, 1, 6, 6)
    moments = ([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    network = normalised(made, head="classifier.2", signature=Signature((1, 6, 6)), moments=moments)
    torch.testing.assert_close(network(x)[0], made((x - 0.5) / 0.2))
