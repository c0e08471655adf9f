"""The watch: the measure's own numbers, no influence on the fit, and an end where they jump."""

import json
from pathlib import Path

import pytest
import torch

from levelhead.analyses.aliasing import aliasing_by_layer
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.forward import Forward, network_loss
from levelhead.objectives.aliasing_watch import AliasingWatch, jumped
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.training import Run, Runtime
from levelhead.types import CannotCompose

TASK = stripes(n=24, size=12)
SMALL = ResNet(depth=8, width=2)
SAMPLER = SGD(epochs=3, batch_size=12, lr=0.02)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_what_is_written_is_the_measure_of_the_layers_that_step(tmp_path: Path) -> None:
    watch = AliasingWatch(rows=24)
    watched = Recipe(backbone=SMALL, regularisers=(watch,), sampler=SAMPLER).fit(TASK, 0, Runtime(folder=tmp_path))
    (network,) = watched.networks()
    found = aliasing_by_layer(network, next(TASK.train.ordered(24)).x)
    assert len(found) == 4, "two stages that step, with their shortcuts"
    assert all(one.absolute > 0 for one in found.values())
    lines = log(tmp_path)
    assert lines[-1]["aliasing"] == pytest.approx(sum(one.absolute for one in found.values()) / 4)
    assert lines[-1]["relative_aliasing"] == pytest.approx(sum(one.relative for one in found.values()) / 4)
    alone = Recipe(backbone=SMALL, sampler=SAMPLER).fit(TASK, 0)
    assert all(torch.equal(t, alone.state_dict()[name]) for name, t in watched.state_dict().items())


def test_layers_can_be_named_and_a_wrong_name_speaks_at_once() -> None:
    network = SMALL(TASK.signature)
    names = list(aliasing_by_layer(network, next(TASK.train.ordered(4)).x))
    term = AliasingWatch(rows=24, layers=(names[0],)).start(network, TASK, Run(0))
    term.end_epoch(network)
    expected = aliasing_by_layer(network, next(TASK.train.ordered(24)).x)[names[0]].absolute
    assert term.watched["aliasing"] == pytest.approx(expected)
    with pytest.raises(CannotCompose, match=r"choose among .*stage"):
        AliasingWatch(layers=("nothing",)).start(network, TASK, Run(0))


def test_a_network_without_steps_aliases_nothing() -> None:
    network = MLP()(TASK.signature)
    term = AliasingWatch().start(network, TASK, Run(0))
    forward = Forward(network, next(TASK.train.ordered(8)))
    assert torch.equal(term(network_loss, forward), network_loss(forward))
    term.end_epoch(network)
    assert term.watched == {"aliasing": 0.0, "relative_aliasing": 0.0}
    assert not term.finished


def test_a_jump_is_measured_against_the_median_of_the_epochs_before() -> None:
    calm = [3.0, 3.2, 9.0, 3.1, 3.3]  # an outlier long ago moves no median
    assert not jumped([*calm, 3.9], 1.25, 5)
    assert jumped([*calm, 4.1], 1.25, 5)
    assert not jumped([1.0, 9.0], 1.25, 5), "too few epochs to know what is usual"
    assert not jumped([9.0, *calm, 4.05], 1.25, 6), "1.25 times the mean of 3.2 and 3.3 is 4.0625"
    assert jumped([9.0, *calm, 4.07], 1.25, 6)


def test_a_jump_ends_the_fit_also_a_resumed_one(tmp_path: Path) -> None:
    network = SMALL(TASK.signature)
    spec = AliasingWatch(rows=8, factor=1e-6, window=2)
    term = spec.start(network, TASK, Run(0))
    for finished in (False, False, True):
        term.end_epoch(network)
        assert term.finished is finished
    resumed = spec.start(network, TASK, Run(0))
    resumed.load_state_dict(term.state_dict())
    assert resumed.finished
    sampler = SGD(epochs=6, batch_size=12, lr=0.02)
    Recipe(backbone=SMALL, regularisers=(spec,), sampler=sampler).fit(TASK, 0, Runtime(folder=tmp_path))
    assert len(log(tmp_path)) == 3


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="rows and window must be at least 1, got 0 and 10"):
        AliasingWatch(rows=0)
    with pytest.raises(ValueError, match="factor must be positive, or None, got -1"):
        AliasingWatch(factor=-1.0)
