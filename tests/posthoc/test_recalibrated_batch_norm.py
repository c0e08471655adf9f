"""New BatchNorm statistics against moments of the maps that prediction sees."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.network import Network
from levelhead.posthoc.recalibrated_batch_norm import RecalibratedBatchNorm
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import Ensemble, Point, WeightSamples
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.samplers.snapshot import Snapshot
from levelhead.surgeries.dropout import Dropout
from levelhead.surgeries.frequency_dropout import FrequencyDropout
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose

TASK = stripes(n=48)
X = TASK.test.x / 255
SMALL = SGD(epochs=2, batch_size=16, lr=0.05)


def fitted(*surgeries: object) -> Point:
    predictor = Recipe(backbone=ResNet(depth=8, width=4), surgery=surgeries, sampler=SMALL).fit(TASK, 0, rehearsed=True)
    assert isinstance(predictor, Point)
    return predictor


def norms(network: Network) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_statistics_are_the_moments_of_the_maps_at_prediction() -> None:
    """One batch of all rows: in the stem, mean and variance of its convolution; no filter, no dropout."""
    for surgery in (FrequencyDropout(eval_mode="identity"), Dropout(where="layers")):
        point = fitted(surgery)
        renewed = RecalibratedBatchNorm(batch_size=len(TASK.train))(point, TASK)
        stages = renewed.network.features
        maps = stages.stem.conv(stages.normalise(TASK.train.x / 255))
        first = norms(renewed.network)[0]
        assert_close(first.running_mean, maps.mean((0, 2, 3)))
        assert_close(first.running_var, maps.transpose(0, 1).flatten(1).var(1))
        assert not torch.allclose(first.running_mean, norms(point.network)[0].running_mean)


def test_the_plain_average_over_some_batches() -> None:
    point = fitted()
    renewed = RecalibratedBatchNorm(batch_size=10, num_batches=2)(point, TASK)
    order = torch.randperm(len(TASK.train), generator=torch.Generator().manual_seed(0))[:20]
    stages = renewed.network.features
    maps = stages.stem.conv(stages.normalise(TASK.train.x[order] / 255))
    variances = [part.transpose(0, 1).flatten(1).var(1) for part in maps.split(10)]
    assert_close(norms(renewed.network)[0].running_var, torch.stack(variances).mean(0))
    assert all(norm.num_batches_tracked == 2 for norm in norms(renewed.network))
    assert {norm.momentum for norm in norms(renewed.network)} == {norms(point.network)[0].momentum}
    assert not any(module.training for module in renewed.modules())


def test_without_filters_new_statistics_take_out_the_mismatch() -> None:
    """The maps in front of the last norm, standardised by its statistics: variance 1 when these are the maps' own."""
    point = fitted(FrequencyDropout(eval_mode="identity", filters=("gabor",), gabor_p=0.0))
    off = []
    for predictor in (point, RecalibratedBatchNorm()(point, TASK)):
        kept: dict[nn.Module, torch.Tensor] = {}
        for norm in norms(predictor.network):
            norm.register_forward_pre_hook(lambda module, args, kept=kept: kept.update({module: args[0].detach()}))
        predictor(TASK.train.x / 255)
        ratios = [kept[norm].var((0, 2, 3)) / norm.running_var for norm in norms(predictor.network)]
        off.append(float(torch.cat(ratios).log().abs().mean()))
    assert off[1] < 0.05 < 0.3 < off[0]


def test_layers_that_draw_at_prediction_draw_here() -> None:
    renewed = RecalibratedBatchNorm()(fitted(MCDropout(p=0.4, where="layers")), TASK)
    at_rest = RecalibratedBatchNorm()(fitted(Dropout(p=0.4, where="layers")), TASK)
    variances = [float(norms(each.network)[-1].running_var.mean()) for each in (renewed, at_rest)]
    assert variances[0] > 1.2 * variances[1]  # dropout adds variance
    state = torch.get_rng_state()
    assert torch.equal(RecalibratedBatchNorm()(renewed, TASK)(X).log_probs, renewed(X).log_probs)
    assert torch.equal(torch.get_rng_state(), state)


def test_members_and_draws_get_their_own() -> None:
    first, second = fitted(), fitted(FrequencyDropout(eval_mode="identity"))
    both = RecalibratedBatchNorm()(Ensemble([first, second]), TASK)
    alone = [RecalibratedBatchNorm()(each, TASK) for each in (first, second)]
    assert torch.equal(both(X).log_probs, Ensemble(alone)(X).log_probs)
    recipe = Recipe(backbone=ResNet(depth=8, width=4), sampler=Snapshot(inner=SMALL, cycles=2))
    draws = recipe.fit(TASK, 0, rehearsed=True)
    assert isinstance(draws, WeightSamples)
    renewed = RecalibratedBatchNorm()(draws, TASK)
    for k in range(draws.num_draws):
        probe = draws.network.copy()
        probe.load_state_dict({**probe.state_dict(), **{name: values[k] for name, values in draws.draws.items()}})
        expected = RecalibratedBatchNorm()(Point(probe), TASK)
        assert_close(list(renewed.outputs(X))[k], expected.outputs(X))


def test_frozen_norms_stay_and_what_has_none_is_refused() -> None:
    point = fitted()
    held = norms(point.network)[0].running_mean.clone()
    point.network.freeze(point.network.features.stem)
    renewed = RecalibratedBatchNorm()(point, TASK)
    assert torch.equal(norms(renewed.network)[0].running_mean, held)
    plain = Recipe(backbone=MLP(), sampler=SMALL).fit(TASK, 0, rehearsed=True)
    with pytest.raises(CannotCompose, match="Leave it out"):
        RecalibratedBatchNorm()(plain, TASK)
    with pytest.raises(CannotCompose, match="Put it first"):
        RecalibratedBatchNorm()(Temperature()(fitted(), TASK), TASK)
    for name in ("batch_size", "num_batches"):
        with pytest.raises(ValueError, match=name):
            RecalibratedBatchNorm(**{name: 0})
