"""The loop with surrogates whose answers are known: c by a width, c doubled and put back, equal starts."""

import pytest
import torch

from levelhead.backbones.mlp import MLP
from levelhead.bayesian_optimisation.loop import FIRST_RADIUS, MOST_DOUBLINGS, Rule, optimise, scaled
from levelhead.bayesian_optimisation.surrogate import Fitted, belief_of, known_values
from levelhead.nomu.desiderata import distance_to
from levelhead.predictive import GaussianMixture
from levelhead.predictor import Predictor
from levelhead.recipes.nomu import nomu

TOP = torch.tensor([0.4, -0.3, 0.1, -0.8])


def hill(x: torch.Tensor) -> torch.Tensor:
    return -(x - TOP[: x.shape[1]]).square().sum(-1)


def nearest(x: torch.Tensor, y: torch.Tensor, seed: int):
    """Believes the value of the nearest known point, and is as uncertain as that is far."""

    def belief(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        apart = torch.cdist(points, x)
        return y[apart.argmin(1)] + 0 * points.sum(-1), apart.amin(1)

    return belief


def smooth(x: torch.Tensor, y: torch.Tensor, seed: int):
    """A Gaussian process with a wide kernel."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (-(a[:, None] - b).square().sum(-1) / 4).exp().double()

    inverse = (kernel(x, x) + 1e-6 * torch.eye(len(x))).inverse()

    def belief(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        across = kernel(points, x)
        variance = 1 - (across @ inverse * across).sum(1)
        return (y.mean() + across @ inverse @ (y - y.mean()).double()).float(), variance.clamp_min(1e-12).sqrt().float()

    return belief


def stubborn(x: torch.Tensor, y: torch.Tensor, seed: int):
    """At first believes in one known point, and in others only if uncertainty counts a hundred times."""
    if len(x) > 4:
        return nearest(x, y, seed)
    known = x[0]

    def belief(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        apart = (points - known).square().sum(-1)
        return -100 * apart, apart

    return belief


def test_the_width_of_the_first_surrogate_sets_c():
    x = 2 * torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) - 1
    y = hill(x)
    belief = nearest(x, y, 0)
    c = Rule(budget=0.5).factor(belief, y, 2, seed=0)
    points = 2 * torch.rand(20_000, 2) - 1
    assert float(2 * c * distance_to(x, points).mean()) == pytest.approx(0.5 * float(y.std()), rel=0.02)
    assert Rule(budget=None).factor(belief, y, 2, seed=0) == 1.0


def test_c_is_doubled_until_the_point_is_new_and_is_put_back():
    history = optimise(hill, 2, surrogate=stubborn, rule=Rule(budget=None), start=4, steps=2, seed=1)
    assert history.c == (128.0, 1.0)  # 1, doubled seven times: only beyond 100 another point is worth more
    assert float((history.x[4] - history.x[0]).norm()) > FIRST_RADIUS


def test_c_is_doubled_at_most_so_often():
    def hopeless(x: torch.Tensor, y: torch.Tensor, seed: int):
        return lambda points: (-(points - x[0]).square().sum(-1), torch.zeros(len(points)))

    history = optimise(hill, 2, surrogate=hopeless, rule=Rule(budget=None), start=3, steps=1)
    assert history.c == (2.0**MOST_DOUBLINGS,)
    plain = optimise(hill, 2, surrogate=hopeless, rule=Rule(budget=None, dynamic=False), start=3, steps=1)
    assert plain.c == (1.0,)


@pytest.mark.parametrize("rule", [Rule(budget=1.0), Rule("improvement", budget=None)], ids=["bound", "improvement"])
def test_it_finds_a_hill_that_random_search_does_not(rule):
    found = optimise(hill, 4, surrogate=smooth, rule=rule, start=4, steps=12, seed=2)
    random = optimise(hill, 4, surrogate=None, start=4, steps=12, seed=2)
    assert torch.equal(found.x[:4], random.x[:4])
    assert len(found.y) == len(random.y) == 16
    assert torch.equal(found.y, hill(found.x))
    assert (found.best.diff() >= 0).all()
    assert float(found.best[-1]) > float(random.best[-1])
    assert (found.x.abs() <= 1).all()


def test_a_recipe_is_a_surrogate():
    recipe = nomu(MLP((16,)), side=(16,), epochs=30, lr=1e-2, num_points=16)
    found = optimise(hill, 2, surrogate=Fitted(recipe), start=4, steps=2)
    again = optimise(hill, 2, surrogate=Fitted(recipe), start=4, steps=2)
    assert torch.equal(found.x, again.x)
    assert len(found.c) == 2


def test_known_values_are_all_for_training():
    x, y = torch.rand(5, 2), torch.rand(5)
    task = known_values(x, y)
    assert torch.equal(task.train.y[:, 0], y)
    assert task.likelihood.shift[0] == pytest.approx(float(y.mean()))


def test_only_one_real_target_is_a_belief():
    class Two(Predictor):
        def forward(self, x):
            return GaussianMixture(torch.zeros(1, len(x), 2), torch.ones(1, len(x), 2))

        def children_predictors(self):
            return ()

    with pytest.raises(ValueError, match="one real target"):
        belief_of(Two())(torch.rand(3, 2))


def test_a_box_is_brought_to_the_cube():
    function = scaled(lambda x: x[:, 0] - x[:, 1], torch.tensor([0.0, 10.0]), torch.tensor([4.0, 30.0]))
    assert function(torch.tensor([[-1.0, -1.0], [1.0, 0.0]])).tolist() == [-10.0, -16.0]


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="budget"):
        Rule(budget=0.0)
    with pytest.raises(ValueError, match="at least 2 points"):
        optimise(hill, 2, surrogate=None, start=1)
    with pytest.raises(ValueError, match="num_dimensions must be at least 1"):
        optimise(hill, 0, surrogate=None)
    with pytest.raises(ValueError, match=r"one number a point, shape \(3,\) here; got \(3, 1\)"):
        optimise(lambda x: x[:, :1], 2, surrogate=None, start=3)


def test_equal_values_at_the_start_say_no_width():
    assert Rule(budget=0.5).factor(lambda x: (x[:, 0], torch.full((len(x),), 0.1)), torch.ones(3), 2, 0) == 1.0
