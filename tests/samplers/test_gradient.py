"""Schedules, clipping, weight decay and precision of the gradient samplers against plain torch."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import network_loss
from levelhead.samplers._gradient import rate
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.training import Run

TASK = stripes(n=60)


def test_sgd_takes_torchs_steps() -> None:
    spec = SGD(epochs=1, batch_size=16, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, schedule="constant")
    network = MLP()(TASK.signature)
    twin = network.copy()
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    state = spec.init(network, TASK, Run(0))
    for batch in TASK.train.batches(16, torch.Generator()):
        spec.step(state, network_loss, batch)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(twin(batch.x)[0], batch.y).backward()
        optimiser.step()
    for name, parameter in twin.named_parameters():
        assert_close(dict(network.named_parameters())[name], parameter)


def test_adamw_takes_torchs_steps() -> None:
    spec = AdamW(epochs=1, batch_size=16, lr=0.01, weight_decay=0.1, schedule="constant")
    network = MLP()(TASK.signature)
    twin = network.copy()
    optimiser = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.1)
    state = spec.init(network, TASK, Run(0))
    for batch in TASK.train.batches(16, torch.Generator()):
        spec.step(state, network_loss, batch)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(twin(batch.x)[0], batch.y).backward()
        optimiser.step()
    assert_close(network.head.weight, twin.head.weight)


def test_schedules() -> None:
    cosine = [rate(SGD(schedule="cosine"), done, 10, 100) for done in (0, 50, 100)]
    assert cosine == pytest.approx([1.0, 0.5, 0.0])
    step = [rate(SGD(schedule="step"), done, 10, 100) for done in (29, 30, 60, 80)]
    assert step == pytest.approx([1.0, 0.2, 0.04, 0.008])
    warm = [rate(SGD(schedule="constant", warmup_epochs=1.0), done, 4, 100) for done in (0, 1, 2, 3, 4)]
    assert warm == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_clipping_bounds_the_step() -> None:
    spec = SGD(epochs=1, batch_size=60, lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip=1e-3)
    network = MLP()(TASK.signature)
    before = [p.detach().clone() for p in network.parameters()]
    spec.step(spec.init(network, TASK, Run(0)), network_loss, next(TASK.train.ordered(60)))
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(network.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_passes_keep_float32_weights() -> None:
    spec = SGD(epochs=1, batch_size=60, precision="bfloat16")
    network = MLP()(TASK.signature)
    loss = spec.step(spec.init(network, TASK, Run(0)), network_loss, next(TASK.train.ordered(60)))
    assert torch.isfinite(loss)
    assert network.head.weight.dtype == network.head.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_settings_without_sense_are_refused(cls: type[SGD] | type[AdamW]) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        cls(batch_size=0)
    with pytest.raises(ValueError, match="clip must be positive or None"):
        cls(clip=0.0)
