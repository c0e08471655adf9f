"""Diagnostics on their way into records: as they are, and the worst of several."""

import torch

from levelhead.backbones.mlp import MLP
from levelhead.evaluation import records
from levelhead.evaluations.mcmc import MCMC
from levelhead.predictor import Ensemble, Point, WeightSamples
from levelhead.tasks.stripes import stripes

TASK = stripes(n=24, size=8)


def samples(rhat: float, acceptance: float, draws: int) -> WeightSamples:
    network = MLP(hidden=(4,))(TASK.signature)
    stacked = {"head.bias": torch.zeros(draws, TASK.signature.num_outputs)}
    return WeightSamples(network, stacked, num_chains=2, diagnostics={"rhat": rhat, "acceptance": acceptance})


def told(predictor) -> dict[str, float]:
    return {record.metric: record.value for record in records(predictor, TASK, (MCMC(),))}


def test_one_samplers_word_is_passed_on():
    assert told(samples(1.02, 0.8, 6)) == {"chains": 2, "draws": 6, "rhat": 1.02, "acceptance": 0.8}


def test_of_several_the_worst_agreement_and_the_mean_acceptance():
    found = told(Ensemble([samples(1.02, 0.8, 6), samples(1.3, 0.6, 4)]))
    assert found["rhat"] == 1.3
    assert abs(found["acceptance"] - 0.7) < 1e-12
    assert (found["chains"], found["draws"]) == (4, 10)


def test_points_have_no_chains():
    assert told(Point(MLP(hidden=(4,))(TASK.signature))) == {"chains": 0, "draws": 0}
