"""BoTorch: its acquisition functions and optimiser on our predictors, its GP in our loop, its test functions."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.bayesian_optimisation.acquisition import expected_improvement, upper_bound
from levelhead.bayesian_optimisation.loop import Rule, optimise, scaled
from levelhead.bayesian_optimisation.surrogate import Fitted, belief_of, known_values
from levelhead.bayesian_optimisation.with_botorch import GaussianProcess, as_model, fitted_gp, propose
from levelhead.recipes.nomu import nomu

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::Warning"),  # what BoTorch and GPyTorch warn of is theirs
]

pytest.importorskip("botorch", reason="make test-interop installs botorch")

RECIPE = nomu(MLP((16,)), side=(16,), epochs=60, lr=1e-2, num_points=32)


def wave(x: torch.Tensor) -> torch.Tensor:
    return (3 * x[:, 0]).sin() - x[:, 1].square()


@pytest.fixture(scope="module")
def known():
    x = 2 * torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) - 1
    return x, wave(x)


@pytest.fixture(scope="module")
def predictor(known):
    return RECIPE.fit(known_values(*known), 0, rehearsed=True).requires_grad_(False)


def test_our_predictor_is_a_model_for_its_acquisition_functions(predictor):
    from botorch.acquisition.analytic import ExpectedImprovement, UpperConfidenceBound

    points = 2 * torch.rand(20, 2, dtype=torch.float64) - 1  # in float32 GPyTorch lets no variance below 1e-6
    mean, std = (t.double() for t in belief_of(predictor)(points.float()))
    model = as_model(predictor)
    bound = UpperConfidenceBound(model, beta=4.0)(points[:, None])
    assert_close(bound, upper_bound(mean, std, c=2.0), rtol=1e-4, atol=1e-4)
    improvement = ExpectedImprovement(model, best_f=0.2)(points[:, None])
    assert_close(improvement, expected_improvement(mean, std, best=0.2), rtol=1e-3, atol=1e-4)


def test_its_optimiser_climbs_our_bound(predictor):
    torch.manual_seed(0)
    point = propose(as_model(predictor), 2, best=0.5, c=2.0)
    mean, std = belief_of(predictor)(point[None].float())
    many = 2 * torch.rand(2000, 2) - 1
    other_mean, other_std = belief_of(predictor)(many)
    assert (point.abs() <= 1).all()
    assert float(mean + 2 * std) >= float((other_mean + 2 * other_std).max()) - 0.02
    assert propose(as_model(predictor), 2, best=0.5).shape == (2,)


def test_its_gp_meets_the_values_and_is_uncertain_elsewhere(known):
    x, y = known
    belief = GaussianProcess()(x, y, 0)
    mean, std = belief(x)
    assert_close(mean, y, atol=0.02, rtol=0)
    far = belief(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))[1]
    assert float(std.max()) < 0.2 * float(far.min())
    moved = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(belief(moved + 0.1)[1].sum(), moved)
    assert gradient.isfinite().all()
    assert fitted_gp(x, y) is not None


def test_our_loop_drives_its_gp_on_its_functions():
    from botorch.test_functions import Branin

    function = Branin(negate=True)
    low, high = function.bounds
    objective = scaled(lambda x: function(x.double()).float(), low.float(), high.float())
    found = optimise(objective, 2, surrogate=GaussianProcess(), rule=Rule("improvement", budget=None), start=5, steps=8)
    random = optimise(objective, 2, surrogate=None, start=5, steps=8)
    assert float(found.best[-1]) > float(random.best[-1])


def test_our_loop_drives_our_predictor_on_its_functions():
    from botorch.test_functions import Levy

    function = Levy(dim=2, negate=True)
    low, high = function.bounds
    objective = scaled(lambda x: function(x.double()).float(), low.float(), high.float())
    history = optimise(objective, 2, surrogate=Fitted(RECIPE), start=4, steps=2)
    assert history.y.isfinite().all()
