"""Scores of raw logits: energy, the largest logit, and the energy of clipped features."""

import numpy as np
import pytest
import torch
from detectors.plain import float64, plain, plain_task, rows
from echo import Echo
from torch import nn
from torch.testing import assert_close

from levelhead.detectors._fit import Scorer
from levelhead.detectors.energy import Energy
from levelhead.detectors.max_logit import MaxLogit
from levelhead.detectors.max_probability import MaxProbability
from levelhead.detectors.react import ReAct
from levelhead.posthoc.temperature import Tempered
from levelhead.predictor import Ensemble, WeightSamples
from levelhead.types import CannotCompose

TASK = plain_task()
X = float64(rows(20, 5)[0])


def test_the_energy_is_minus_the_log_partition():
    point = plain()
    logits = point.outputs(X)[0]
    assert_close(Scorer(point, Energy())(X), -logits.logsumexp(-1))
    assert_close(Scorer(point, Energy(temperature=3.0))(X), -3 * (logits / 3).logsumexp(-1))
    assert_close(Scorer(point, MaxLogit())(X), -logits.amax(-1))
    assert_close(Scorer(point, Energy(temperature=1e-3))(X), -logits.amax(-1), atol=2e-3, rtol=0)


def test_a_constant_on_the_logits_shifts_them_but_no_probability():
    point, shifted = plain(), plain()
    shifted.network.head.bias.data += 4
    for spec in (Energy(), MaxLogit()):
        assert_close(Scorer(shifted, spec)(X), Scorer(point, spec)(X) - 4)
    assert_close(Scorer(shifted, MaxProbability())(X), Scorer(point, MaxProbability())(X))


def test_members_are_averaged_under_their_weights():
    members = [plain(seed=seed) for seed in range(3)]
    weights = torch.tensor([0.5, 0.2, 0.3])
    ensemble = Ensemble([Ensemble(members[:2], weights[:2].log()), members[2]], torch.tensor([0.7, 0.3]).log())
    expected = sum(w * Scorer(member, Energy())(X) for w, member in zip(weights.tolist(), members, strict=True))
    assert_close(Scorer(ensemble, Energy())(X), expected, rtol=1e-6, atol=1e-6)


def test_draws_of_weights_are_members():
    members = [plain(seed=seed) for seed in range(2)]
    draws = {
        name: torch.stack([dict(m.network.named_parameters())[name].detach() for m in members])
        for name in ("head.weight", "head.bias")
    }
    sampled = WeightSamples(members[0].network, draws)
    for spec in (Energy(), ReAct()):
        expected = Scorer(Ensemble(members), spec, spec.fit(Ensemble(members), TASK).learned)(X)
        assert_close(spec.fit(sampled, TASK)(X), expected)


def test_calibration_does_not_enter():
    point = plain()
    assert_close(Scorer(Tempered(point, 5.0), Energy())(X), Scorer(point, Energy())(X))


def test_react_clips_at_the_percentile_of_all_activations():
    point, spec = plain(), ReAct(percentile=80.0)
    scorer = spec.fit(point, TASK)
    threshold = np.percentile(TASK.train.x.double().numpy(), 80)
    assert float(scorer.learned[0]["threshold"]) == pytest.approx(threshold)
    expected = -point.network.head(X.clamp_max(threshold)).logsumexp(-1)
    assert_close(scorer(X), expected)


def test_react_with_nothing_to_clip_is_the_energy():
    point = plain()
    scorer = ReAct(percentile=100.0).fit(point, TASK)
    x = float64(TASK.train.x)
    assert_close(scorer(x), Scorer(point, Energy())(x))


@pytest.mark.parametrize("name", ["max_logit", "max_probability", "entropy"])
def test_react_takes_other_scores(name):
    point = plain()
    scorer = ReAct(logit_score=name).fit(point, TASK)
    logits = point.network.head(X.clamp_max(float(scorer.learned[0]["threshold"])))
    p = logits.softmax(-1)
    expected = {"max_logit": -logits.amax(-1), "max_probability": 1 - p.amax(-1), "entropy": -(p * p.log()).sum(-1)}
    assert_close(scorer(X), expected[name])


def test_react_runs_any_head():
    head = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    point = plain(head=head)
    scorer = ReAct().fit(point, TASK)
    clipped = X.clamp_max(float(scorer.learned[0]["threshold"]))
    assert_close(scorer(X), -head(clipped).logsumexp(-1))


@pytest.mark.parametrize("spec", [Energy(), MaxLogit()])
def test_a_predictor_without_networks_is_told_what_to_use(spec):
    with pytest.raises(CannotCompose, match="Entropy"):
        Scorer(Echo(), spec)(torch.randn(3, 3))


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: Energy(temperature=0.0), "temperature"),
        (lambda: ReAct(percentile=0.0), "percentile"),
        (lambda: ReAct(logit_score="loudness"), "loudness"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
