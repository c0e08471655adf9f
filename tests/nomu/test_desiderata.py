"""What is asked of model uncertainty, on predictors whose answers are known."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.nomu.desiderata import desiderata, distance_to, metric_ratio, rank_correlation, std_at, vanishes
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Predictor

TRAIN = torch.tensor([[-0.5, 0.0], [0.5, 0.0]])


class Distance(Predictor):
    """Says as its uncertainty the distance to the training inputs, `weights` a feature."""

    def __init__(self, weights: tuple[float, float]) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        std = distance_to(TRAIN * self.weights, x * self.weights)[None, :, None]
        return GaussianMixture(torch.zeros_like(std), std.square() + 1, model_variances=std.square())

    def children_predictors(self):
        return ()


class Labels(Distance):
    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        return CategoricalMixture(torch.zeros(1, len(x), 2))


def test_distance_itself_has_everything():
    domain = 2 * torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) - 1
    found = desiderata(Distance((1.0, 1.0)), TRAIN, domain)
    assert found.smallest == 0
    assert found.in_sample == pytest.approx(0, abs=1e-6)
    assert found.growth == pytest.approx(1)
    assert found.mean_std == pytest.approx(float(distance_to(TRAIN, domain).mean()), rel=1e-5)


def test_a_metric_is_seen():
    relevant, irrelevant = torch.tensor([[1.5, 0.0]]), torch.tensor([[0.5, 1.0]])
    assert metric_ratio(Distance((3.0, 1.0)), relevant, irrelevant) == pytest.approx(3)
    assert metric_ratio(Distance((1.0, 1.0)), relevant, irrelevant) == pytest.approx(1)


def test_several_batches_are_one():
    x = torch.rand(4500, 2)
    torch.testing.assert_close(std_at(Distance((1.0, 1.0)), x), distance_to(TRAIN, x))


def test_ranks_share_ties():
    a = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert rank_correlation(a, a.exp()) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    b = torch.tensor([4.0, 1.0, 3.0, 2.0])
    ranks = torch.stack([torch.tensor([1.0, 2.5, 2.5, 4.0]), torch.tensor([4.0, 1.0, 3.0, 2.0])])
    assert rank_correlation(a, b) == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))
    assert rank_correlation(torch.ones(4), b) == 0


def test_vanishing_is_a_fall_at_every_step():
    assert vanishes([3.0, 2.0, 1.0])
    assert not vanishes([3.0, 1.0, 1.0])


def test_classes_are_refused():
    with pytest.raises(ValueError, match="real targets"):
        std_at(Labels((1.0, 1.0)), TRAIN)
