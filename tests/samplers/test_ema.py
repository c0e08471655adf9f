"""Averages against a running loop."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import network_loss
from levelhead.recipe import Recipe
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import CannotCompose

TASK = stripes(n=60)


def test_averages_are_those_of_the_formula() -> None:
    spec = EMA(inner=SGD(epochs=1, batch_size=16, lr=0.1), decay=0.5)
    network = MLP(batch_norm=True)(TASK.signature)
    expected = {name: t.clone() for name, t in network.state_dict().items()}
    state = spec.init(network, TASK, Run(0))
    for step, batch in enumerate(TASK.train.batches(16, torch.Generator())):
        spec.step(state, network_loss, batch)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, t in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * t if t.is_floating_point() else t.clone()
    predictor = spec.predictor(state)
    for name, tensor in next(predictor.networks()).state_dict().items():
        assert_close(tensor, expected[name])


def test_no_decay_is_the_inner_sampler() -> None:
    inner = SGD(epochs=2, batch_size=16)
    x = TASK.test.x / 255
    plain, averaged = (
        Recipe(backbone=MLP(), sampler=s).fit(TASK, 0)(x).probs for s in (inner, EMA(inner=inner, decay=0.0))
    )
    assert_close(plain, averaged)


def test_it_refuses_inners_it_would_not_reach() -> None:
    with pytest.raises(CannotCompose, match="EMA averages the path of one gradient sampler, not SWAG"):
        Recipe(backbone=MLP(), sampler=EMA(inner=SWAG())).fit(TASK, 0)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        EMA(decay=1.0)
