"""Noise seeds, draws of weights, mixtures of predictors, and predictions in batches."""

import pytest
import torch
from networks import Noisy, Scaled, network
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.predictor import Ensemble, Point, WeightSamples, predict
from levelhead.tasks.stripes import stripes

X = torch.rand(6, 4)


def test_rows_become_members_of_the_mixture() -> None:
    made = network(Scaled(2, 5), Noisy(), num_members=2, num_samples=3)
    belief = Point(made)(X)
    assert belief.num_members == 6
    assert_close(belief.probs.sum(-1), torch.ones(6))


def test_a_noise_seed_repeats_and_none_draws_afresh() -> None:
    predictor = Point(network(Noisy(), num_samples=4), noise=3)
    assert torch.equal(predictor(X).probs, predictor(X).probs)
    other = Point(predictor.network, noise=4)
    assert not torch.equal(predictor(X).probs, other(X).probs)
    predictor.with_noise(None)
    assert not torch.equal(predictor(X).probs, predictor(X).probs)


def test_a_seeded_prediction_leaves_torchs_stream_alone() -> None:
    predictor = Point(network(Noisy(), num_samples=2), noise=3)
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    predictor(X)
    assert torch.equal(torch.randn(3), expected)


def test_noise_seeds_reach_predictors_inside() -> None:
    inside = [Point(network(Noisy(), num_samples=2)) for _ in range(2)]
    ensemble = Ensemble(inside)
    assert ensemble.stochastic
    ensemble.with_noise(9)
    assert [member.noise for member in inside] == [9, 9]
    assert not Ensemble([Point(network())]).stochastic


def test_weights_of_an_ensemble_are_those_of_its_members() -> None:
    members = [Point(network()), Point(network())]
    weights = torch.tensor([0.2, 0.8])
    first, second = (member(X).probs for member in members)
    assert_close(Ensemble(members, weights.log())(X).probs, 0.2 * first + 0.8 * second)
    with pytest.raises(ValueError, match="members is empty"):
        Ensemble([])


def test_draws_of_weights_are_networks_under_these_weights() -> None:
    made = network(nn.BatchNorm1d(5)).eval()
    draws = {"head.weight": torch.randn(3, 3, 5), "features.1.running_mean": torch.randn(3, 5)}
    belief = WeightSamples(made, draws)(X)
    for place in range(3):
        outputs = functional_call(made, {name: t[place] for name, t in draws.items()}, (X,))
        assert_close(belief.logits[place], outputs[0].log_softmax(-1))
    with pytest.raises(ValueError, match="agree in number"):
        WeightSamples(made, {"head.weight": torch.randn(3, 3, 5), "head.bias": torch.randn(2, 3)})


def test_draws_move_with_the_module() -> None:
    predictor = WeightSamples(network(), {"head.weight": torch.randn(2, 3, 5)}).double()
    assert predictor.draws["head.weight"].dtype == torch.float64
    assert predictor(X.double()).logits.dtype == torch.float64


def test_predictions_are_differentiable_in_the_input() -> None:
    x = X.clone().requires_grad_(True)
    for predictor in (
        Point(network(Noisy(), num_samples=2)),
        WeightSamples(network(), {"head.bias": torch.randn(2, 3)}),
    ):
        (slope,) = torch.autograd.grad(predictor(x).total().sum(), x)
        assert slope.abs().sum() > 0


def test_a_split_is_predicted_in_order_whatever_the_batch_size() -> None:
    task = stripes(n=60)
    predictor = Point(MLP()(task.signature))
    assert_close(predict(predictor, task.train, batch_size=7).probs, predict(predictor, task.train).probs)
    assert_close(predict(predictor, task.train).probs[:5], predictor(task.train.x[:5] / 255).probs)
