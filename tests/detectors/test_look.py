"""What detectors see: every member of every predictor, its features, its head, and its share of the mixture."""

import pytest
import torch
from detectors.plain import plain
from echo import Echo
from networks import Noisy, Scaled, network
from torch import nn
from torch.testing import assert_close

from levelhead.detectors._fit import fit
from levelhead.detectors._look import Look, seen
from levelhead.detectors.energy import Energy
from levelhead.detectors.knn import KNN
from levelhead.posthoc.temperature import Tempered
from levelhead.predictor import Ensemble, Point, Predictor, WeightSamples
from levelhead.types import CannotCompose

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


def membered() -> Point:
    return Point(network(Scaled(3, 5), nn.Tanh(), num_members=3))


def sampled() -> WeightSamples:
    made = network(nn.Tanh())
    draws = {name: t.detach() + 0.3 * torch.randn(4, *t.shape) for name, t in made.named_parameters()}
    return WeightSamples(made, draws, torch.tensor([0.1, 0.2, 0.3, 0.4]).log())


def nested() -> Predictor:
    inner = Ensemble([membered(), sampled()], torch.tensor([0.6, 0.4]).log())
    return Ensemble([Tempered(inner, 2.0), Point(network())], torch.tensor([0.5, 0.5]).log())


@pytest.mark.parametrize("make", [membered, sampled, nested])
def test_a_members_head_on_its_features_gives_its_outputs(make):
    torch.manual_seed(1)
    for reading in Look(make(), X).readings:
        assert_close(reading.head(reading.features), reading.outputs)


@pytest.mark.parametrize("make", [membered, sampled])
def test_the_outputs_are_the_beliefs_members(make):
    torch.manual_seed(1)
    look = Look(make(), X)
    outputs = torch.stack([reading.outputs for reading in look.readings])
    assert_close(outputs.log_softmax(-1), look.belief.logits)
    assert_close(torch.tensor(look.weights), look.belief.log_weights.exp(), check_dtype=False)


def test_shares_multiply_down_the_tree():
    torch.manual_seed(1)
    weights = Look(nested(), X).weights
    expected = [0.5 * 0.6 / 3] * 3 + [0.5 * 0.4 * share for share in (0.1, 0.2, 0.3, 0.4)] + [0.5]
    assert weights == pytest.approx(expected)


def test_nothing_is_drawn_for_features():
    noisy = Point(network(Noisy(), num_samples=4), noise=None)
    one, other = (Look(noisy, X).readings for _ in range(2))
    assert len(one) == 1
    assert torch.equal(one[0].features, other[0].features)
    assert Look(noisy, X).belief.num_members == 4


def test_passes_are_made_once():
    predictor = Echo()
    look = Look(predictor, torch.randn(5, 3))
    first, again = look.belief, look.belief
    assert first is again
    assert len(predictor.calls) == 1


def test_no_networks_is_said_with_advice():
    with pytest.raises(CannotCompose, match=r"KNN\(\).*MaxProbability"):
        seen(Look(Echo(), X).readings, wanted_by="KNN()")


def test_the_training_rows_are_read_once_for_all(monkeypatch):
    from detectors.plain import plain_task

    task, passes = plain_task(), []
    point = plain()
    embed = type(point.network).embed
    monkeypatch.setattr(
        type(point.network), "embed", lambda self, x, **kwargs: passes.append(len(x)) or embed(self, x, **kwargs)
    )
    fit((KNN(), KNN(k=3), Energy()), point, task.sealed())
    assert passes == [len(task.train)]
    fit((Energy(),), point, task.sealed())
    assert passes == [len(task.train)]
