"""Heads on one trunk."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical, Signature
from levelhead.surgeries.multi_head import MultiHead
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.types import CannotCompose

IMAGES = Signature(input_shape=(3, 16, 16), num_outputs=5, likelihood=Categorical(5))


def test_heads_read_the_features_of_one_pass() -> None:
    network = ResNet(depth=8)(IMAGES).eval()
    made = MultiHead(num_members=3)(network)
    rows = []
    made.features.stem.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    x = IMAGES.example(2)
    outputs, features = made(x), network.embed(x)[0]
    assert rows == [2]
    for k, head in enumerate(made.head.members):
        assert_close(outputs[k], head(features))
    assert not torch.allclose(outputs[0], outputs[1])


def test_what_is_refused() -> None:
    with pytest.raises(CannotCompose, match="wants a linear head, got"):
        MultiHead()(RandomFeatureHead(rank=8)(MLP()(IMAGES)))
    with pytest.raises(ValueError, match="num_members must"):
        MultiHead(num_members=0)
