"""Scores of the deployed belief: maximum probability, entropy, mutual information."""

import math

import pytest
import torch
from detectors.plain import float64, plain, plain_task, rows
from echo import Echo, EchoGaussian
from torch.testing import assert_close

from levelhead.detectors._fit import Scorer
from levelhead.detectors.entropy import Entropy
from levelhead.detectors.max_probability import MaxProbability
from levelhead.detectors.mutual_information import MutualInformation
from levelhead.predictor import Ensemble
from levelhead.types import CannotCompose

X = float64(rows(20, 5)[0])


def test_they_are_what_their_names_say():
    ensemble = Ensemble([plain(seed=0), plain(seed=1)], torch.tensor([0.2, 0.8]).log())
    p = [member(X).probs for member in ensemble.members]
    mixed = 0.2 * p[0] + 0.8 * p[1]

    def entropy(q):
        return -(q * q.log()).sum(-1)

    assert_close(Scorer(ensemble, MaxProbability())(X), 1 - mixed.amax(-1))
    assert_close(Scorer(ensemble, Entropy())(X), entropy(mixed))
    expected = entropy(mixed) - 0.2 * entropy(p[0]) - 0.8 * entropy(p[1])
    assert_close(Scorer(ensemble, MutualInformation())(X), expected)
    assert (expected <= math.log(2)).all()


def test_sure_rows_do_not_tie():
    logits = torch.tensor([[20.0, 0.0, 0.0], [40.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    score = Scorer(Echo(), MaxProbability())(logits.double())
    assert (score.diff() < 0).all()
    assert_close(score, 2 * torch.exp(-logits[:, 0].double()), rtol=1e-6, atol=0)


def test_one_member_disagrees_with_nobody():
    assert_close(Scorer(plain(), MutualInformation())(X), torch.zeros(20, dtype=torch.float64))


def test_nothing_is_read_to_fit_them():
    predictor = plain()
    scorer = Entropy().fit(predictor, plain_task().sealed())
    assert scorer.learned == ()
    assert_close(scorer(X), predictor(X).total())


@pytest.mark.parametrize("spec", [MaxProbability(), Entropy(), MutualInformation()])
def test_a_regression_is_told_what_to_use(spec):
    with pytest.raises(CannotCompose, match="KNN"):
        Scorer(EchoGaussian(), spec)(torch.randn(3, 2))
