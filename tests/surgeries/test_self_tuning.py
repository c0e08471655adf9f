"""The network of a self-tuning surgery at its point, shifted, centred, and with a dead response."""

import dataclasses

import pytest
import torch
from contracts.styles import TASK, made
from torch.testing import assert_close

from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.hyper_ranges import GaussianHyper, LogUniformHyper
from levelhead.network import Network
from levelhead.surgeries.self_tuning import SelfTuning

X = TASK.test.x / 255


def moved(network: Network, by: float) -> torch.Tensor:
    """Outputs after h has moved."""
    with torch.no_grad():
        network.hyper.h.add_(by)
    return network(X)


def test_there_is_one_member_and_no_vectors():
    network = made("lenet", SelfTuning())
    assert network.num_members == 1
    assert isinstance(network.hyper, GaussianHyper)
    for layer in network.layers(ConditionalWeights):
        assert layer.r is layer.s is layer.u is layer.v is None
        assert layer.bias.shape == (1, layer.num_out)


def test_settings_start_where_they_are_told():
    network = made("mlp", SelfTuning(dropout_range=(0.001, 0.9), label_smoothing_range=(1e-4, 0.3)))
    told = {row["hyper"]: row["point"] for row in network.hyper.table()}
    assert told["dropout"] == pytest.approx(0.05, rel=1e-4)
    assert told["label_smoothing"] == pytest.approx(0.01, rel=1e-4)
    assert told["l2.head"] == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("dead", ["response", "embedding"])
def test_with_a_dead_response_it_is_the_network_whatever_h(dead):
    network = made("lenet", SelfTuning()).eval()
    with torch.no_grad():
        for layer in network.layers(ConditionalWeights):
            (layer.response if dead == "response" else layer.embedding).weight.zero_()
            if dead == "response":
                layer.bias_response.zero_()
    plain = made("lenet").eval()(X)
    assert_close(network(X), plain, rtol=1e-4, atol=1e-5)
    assert_close(moved(network, 3.0), plain, rtol=1e-4, atol=1e-5)


def test_centred_it_is_the_network_itself_at_its_point_whatever_h():
    network = made("lenet", SelfTuning(centred=True, embedding_scale=0.3)).eval()
    plain = made("lenet").eval()(X)
    assert_close(network(X), plain, rtol=1e-4, atol=1e-5)
    assert_close(moved(network, 3.0), plain, rtol=1e-4, atol=1e-5)
    off = torch.full((1, len(X), len(network.hyper.names)), 0.5)
    assert not torch.allclose(network(X, hyper=off), plain, atol=1e-3)


def test_not_centred_it_feels_a_shift():
    network = made("lenet", SelfTuning(embedding_scale=0.3)).eval()
    before = network(X)
    assert not torch.allclose(moved(network, 3.0), before, atol=1e-3)


def test_centred_the_gradient_of_the_point_reaches_h():
    network = made("mlp", SelfTuning(centred=True, embedding_scale=0.3)).eval()
    network.hyper.requires_grad_(True)
    (slope,) = torch.autograd.grad(network(X).square().sum(), network.hyper.h)
    assert slope.any()


def test_intervals_are_hyper_batchs_with_one_member():
    network = made("mlp", SelfTuning(distribution="log_uniform"))
    assert isinstance(network.hyper, LogUniformHyper)
    assert network.hyper.log_alpha.shape[0] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"distribution": "uniform"},
        {"sigma": 0.0},
        {"embedding_scale": -0.1},
        {"centred": True, "distribution": "log_uniform"},
        {"l2_start": 1000.0},
        {"dropout_range": (0.1, 0.5), "dropout_start": 0.05},
        {"l2_range": None},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="SelfTuning: "):
        dataclasses.replace(SelfTuning(), **changes)
