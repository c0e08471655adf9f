"""What every detector must do: score any predictor that it accepts, and say why it refuses others."""

import copy
import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from contracts.styles import (
    STYLES,
    TASK,
    X,
    applicable,
    attempt,
    fit,
    name,
    refusal,
    regression,
    segmentation,
    specs,
)
from torch import nn
from torch.testing import assert_close

from levelhead.detectors._fit import Scorer
from levelhead.detectors._fit import fit as fit_all
from levelhead.detectors._look import Look
from levelhead.network import Network
from levelhead.posthoc.laplace import Laplace
from levelhead.posthoc.temperature import Tempered
from levelhead.predictor import Ensemble, Point, Predictor, WeightSamples
from levelhead.tasks.task import TestDataLeak

DETECTORS = specs("detectors")
SURGERIES = specs("surgeries")
each_detector = pytest.mark.parametrize("detector", DETECTORS, ids=name)


@cache
def network() -> Predictor:
    return fit("resnet", epochs=2)


def sampled() -> Predictor:
    one, two = fit("mlp"), fit("mlp", seed=1)
    ((first,), (second,)) = list(one.networks()), list(two.networks())
    draws = {key: torch.stack([t, second.state_dict()[key]]) for key, t in first.state_dict().items()}
    return WeightSamples(first, draws, torch.tensor([0.4, 0.6]).log())


def kinds() -> Iterator[tuple[str, Predictor]]:
    yield from ((style, fit(style)) for style in STYLES)
    yield "mixture", Ensemble([fit("mlp"), fit("lenet")], torch.tensor([0.3, 0.7]).log())
    yield "weights", sampled()
    yield "tempered", Tempered(fit("mlp"), 2.0)
    yield "laplace", Laplace()(fit("mlp"), TASK.sealed())


def scored(detector: Any, predictor: Predictor | None = None) -> torch.Tensor:
    scorer = detector.fit(network() if predictor is None else predictor, TASK.sealed())
    return scorer(X).detach()


@each_detector
def test_every_row_gets_a_number_whatever_the_predictor(detector):
    for kind, predictor in kinds():
        score = scored(detector, predictor)
        assert score.shape == (len(X),), kind
        assert score.isfinite().all(), kind


@pytest.mark.partners(4, "detector", "surgery")
@each_detector
@pytest.mark.parametrize("surgery", SURGERIES, ids=name)
def test_it_takes_networks_after_any_surgery_or_says_why_not(detector, surgery):
    style = "resnet" if not refusal(surgery, "resnet") else next(applicable(surgery))
    found, _ = attempt(lambda: scored(detector, fit(style, surgery)))
    assert found is None or found.isfinite().all()


@each_detector
def test_rows_do_not_depend_on_the_others_of_their_batch(detector):
    scorer = detector.fit(network(), TASK.sealed())
    apart = torch.cat([scorer(part) for part in X.split(5)])
    assert_close(apart, scorer(X), rtol=1e-3, atol=1e-4)


@each_detector
def test_fitting_twice_gives_the_same_scores_and_reads_no_test_row(detector):
    hidden = TASK.sealed()
    with pytest.raises(TestDataLeak):
        hidden.test  # noqa: B018
    assert torch.equal(scored(detector), scored(detector))


@each_detector
def test_the_predictor_is_untouched(detector):
    predictor = fit("mlp-norm")
    predictor.train()
    state, modes = copy.deepcopy(predictor.state_dict()), [m.training for m in predictor.modules()]
    scorer = detector.fit(predictor, TASK.sealed())
    assert [m.training for m in predictor.modules()] == modes
    scorer.predictor.eval()
    scorer(X)
    assert all(torch.equal(tensor, state[key]) for key, tensor in predictor.state_dict().items())
    assert all(p.grad is None for p in predictor.parameters())


@each_detector
def test_a_shared_pass_and_a_shared_look_change_nothing(detector):
    together = fit_all(DETECTORS, network(), TASK.sealed())[DETECTORS.index(detector)]
    look = Look(network(), X)
    assert_close(together(look), detector.fit(network(), TASK.sealed())(X))


@each_detector
def test_equal_members_score_as_one(detector):
    predictor = fit("mlp")
    twins = Ensemble([predictor, copy.deepcopy(predictor)], torch.tensor([0.3, 0.7]).log())
    assert_close(scored(detector, twins), scored(detector, predictor), rtol=1e-4, atol=1e-5)


@each_detector
def test_regression_is_understood_or_refused_with_advice(detector):
    task = regression()
    predictor = fit("mlp", task=task)
    found, _ = attempt(lambda: detector.fit(predictor, task.sealed())(task.test.x))
    assert found is None or found.isfinite().all()


@each_detector
def test_maps_get_a_score_for_every_site(detector):
    task = segmentation()
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(task.train.x.shape[1], 6, 3, padding=1), nn.ReLU())
    pixels = Point(Network(features, nn.Linear(6, 2), task.signature, channel=1))
    score = detector.fit(pixels, task.sealed())(task.test.x / 255)
    assert score.shape == task.test.y.shape
    assert score.isfinite().all()


@each_detector
def test_double_precision_and_single_agree(detector):
    predictor = fit("mlp")
    precise = copy.deepcopy(predictor).double()
    single = detector.fit(predictor, TASK.sealed())(X)
    double = detector.fit(precise, TASK.sealed())(X.double())
    assert_close(single.double(), double.double(), rtol=5e-2, atol=5e-3)


@each_detector
def test_a_scorer_is_a_value_of_its_parts(detector):
    scorer = detector.fit(network(), TASK.sealed())
    again = Scorer(scorer.predictor, scorer.detector, scorer.learned)
    assert torch.equal(again(X), scorer(X))
    assert dataclasses.is_dataclass(detector)
