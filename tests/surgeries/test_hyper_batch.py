"""Which hyper-parameters there are, where they act, and the networks that hyper-batch becomes without them."""

import dataclasses

import pytest
import torch
from contracts.styles import TASK, made
from torch import nn
from torch.testing import assert_close

from levelhead.layers.conditional_weights import ConditionalWeights, tuned_l2
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.hyper_ranges import LogUniformHyper
from levelhead.layers.per_member import PerMember
from levelhead.layers.tuned_dropout import TunedDropout
from levelhead.network import Network
from levelhead.parameter_groups import groups
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.types import CannotCompose

X = TASK.test.x / 255


def hyper_of(network: Network) -> LogUniformHyper:
    assert isinstance(network.hyper, LogUniformHyper)
    return network.hyper


@pytest.mark.parametrize(
    "spec, style, names",
    [
        (HyperBatch(), "resnet", ("l2.stem", "l2.stage1", "l2.stage2", "l2.stage3", "l2.head", "l2.head.bias")),
        (HyperBatch(groups="layer"), "mlp-norm", ("l2.hidden1.linear", "l2.hidden2.linear", "l2.head", "l2.head.bias")),
        (HyperBatch(groups="model"), "mlp-norm", ("l2",)),
        (HyperBatch(l2_range=None, dropout_range=(0.01, 0.5)), "lenet", ("dropout",)),
        (HyperBatch(groups="model", label_smoothing_range=(1e-5, 0.2)), "mlp", ("l2", "label_smoothing")),
    ],
)
def test_the_hyper_parameters_are_those_of_the_groups(spec, style, names):
    network = made(style, spec)
    assert hyper_of(network).names == names
    assert hyper_of(network).mean().shape == (4, len(names))


def test_every_linear_layer_and_norm_has_members():
    network = made("resnet", HyperBatch(num_members=3))
    before = made("resnet")
    assert len(network.layers(ConditionalWeights)) == len(before.layers(nn.Conv2d, nn.Linear))
    assert len(network.layers(PerMember)) == len(before.layers(nn.BatchNorm2d))
    shared = made("resnet", HyperBatch(num_members=3, per_member_norm=False))
    assert not shared.layers(PerMember)


@pytest.mark.parametrize("style", ["mlp-norm", "lenet", "resnet", "foreign"])
def test_without_responses_it_is_a_batch_ensemble(style):
    hyper = made(style, HyperBatch(num_members=2))
    batch = made(style, BatchEnsemble(num_members=2))
    with torch.no_grad():
        pairs = zip(hyper.layers(ConditionalWeights), batch.layers(FastWeights), strict=True)
        for conditional, fast in pairs:
            conditional.response.weight.zero_()
            fast.r.copy_(conditional.r[None])
            fast.s.copy_(conditional.s[None])
    assert_close(hyper.eval()(X), batch.eval()(X), rtol=1e-4, atol=1e-5)


def test_one_member_without_vectors_and_responses_is_the_network():
    network = made("lenet", HyperBatch(num_members=1, init="ones"))
    with torch.no_grad():
        for layer in network.layers(ConditionalWeights):
            layer.response.weight.zero_()
    assert_close(network.eval()(X), made("lenet").eval()(X), rtol=1e-4, atol=1e-5)


def test_a_member_knows_nothing_of_the_others_hyper_parameters():
    network = made("mlp-norm", HyperBatch(num_members=3, embedding_scale=0.1))
    hyper = hyper_of(network).sample(len(X)).detach().requires_grad_(True)
    outputs = network.train()(X, hyper=hyper)
    (slope,) = torch.autograd.grad(outputs[1].square().sum(), hyper)
    assert slope[1].any()
    assert not slope[0].any()
    assert not slope[2].any()


def test_a_row_knows_nothing_of_other_rows_draws_in_evaluation():
    network = made("lenet", HyperBatch(num_members=2, embedding_scale=0.1)).eval()
    hyper = hyper_of(network).sample(len(X)).detach()
    whole = network(X, hyper=hyper)
    some = network(X[3:5], hyper=hyper[:, 3:5])
    assert_close(whole[:, 3:5], some, rtol=1e-4, atol=1e-5)


def test_prediction_is_at_the_mean_or_the_median():
    for point in ("mean", "median"):
        network = made("mlp", HyperBatch(predict_at=point, embedding_scale=0.1)).eval()
        hyper = hyper_of(network)
        logs = hyper.log_alpha.lerp(hyper.log_beta, 0.5)
        expected = hyper.coordinates(logs) if point == "median" else hyper.mean()
        assert_close(network(X), network(X, hyper=expected[:, None].expand(-1, len(X), -1)))
    assert_close(hyper.mean(), torch.full_like(hyper.log_alpha, 0.5))


@pytest.mark.parametrize("where, count", [("head", 1), ("layers", 4)])
def test_dropout_of_rows_stands_where_it_is_asked_for(where, count):
    network = made("lenet", HyperBatch(num_members=2, dropout_range=(0.01, 0.9), dropout_where=where))
    assert len(network.layers(TunedDropout)) == count  # of five layers: all but the first, the head's own included
    network.train()
    torch.manual_seed(0)
    assert not torch.allclose(network(X), network(X))
    network.eval()
    assert torch.equal(network(X), network(X))


def test_the_rates_of_dropout_are_those_of_the_rows():
    network = made("mlp", HyperBatch(num_members=1, l2_range=None, dropout_range=(1e-6, 0.9), per_member_norm=False))
    network.train()
    hyper = torch.zeros(1, len(X), 1)  # the lowest rate: almost nothing is dropped
    hyper[:, 0] = 1.0
    torch.manual_seed(0)
    first = network(X, hyper=hyper)[0]
    other = network(X, hyper=hyper)[0]
    assert_close(first[1:], other[1:])
    assert not torch.allclose(first[0], other[0])


def test_the_whole_penalty_is_the_sum_of_the_layers():
    network = made("lenet", HyperBatch(num_members=2, regularise_vectors=True))
    hyper = hyper_of(network)
    coordinates = hyper.sample(5)
    settings = hyper.values(coordinates)
    expected = sum(layer.penalty(coordinates, settings) for layer in network.layers(ConditionalWeights))
    assert_close(tuned_l2(network, coordinates), expected)
    assert expected > 0


def test_weight_decay_acts_on_nothing_that_has_a_coefficient():
    network = made("resnet", HyperBatch(num_members=2))
    decayed = {p for g in groups(network, lr=1.0, weight_decay=0.1) if g["weight_decay"] for p in g["params"]}
    conditional = {p for layer in network.layers(ConditionalWeights) for p in layer.parameters()}
    assert decayed
    assert not decayed & conditional
    slow = {p for g in groups(network, lr=1.0, weight_decay=0.1) if g["scale"] == 0.5 for p in g["params"]}
    assert network.head.r in slow
    assert network.head.module.weight not in slow


def test_ranges_want_no_gradient_until_somebody_tunes_them():
    network = made("mlp", HyperBatch())
    assert not any(p.requires_grad for p in hyper_of(network).parameters())
    assert {"hyper.log_alpha", "hyper.log_beta", "hyper.log_low"} <= set(network.state_dict())


def test_a_second_tuning_surgery_is_refused():
    with pytest.raises(CannotCompose, match="one surgery"):
        made("mlp", HyperBatch(), HyperBatch())


@pytest.mark.parametrize(
    "changes",
    [
        {"num_members": 0},
        {"l2_range": None},
        {"l2_range": (0.0, 1.0)},
        {"dropout_range": (0.1, 1.0)},
        {"label_smoothing_range": (0.2, 0.1)},
        {"groups": "block"},
        {"dropout_where": "features"},
        {"interval": 0.0},
        {"predict_at": "mode"},
        {"init": "zeros"},
        {"embedding_scale": 0.0},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="HyperBatch: "):
        dataclasses.replace(HyperBatch(), **changes)
