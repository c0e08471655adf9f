"""Finding the top of known hills, inside and at the edge of the box."""

import pytest
import torch

from levelhead.bayesian_optimisation.maximise import maximise

TOP = torch.tensor([0.3, -0.6, 0.9])


def hill(x: torch.Tensor) -> torch.Tensor:
    return -(x - TOP).square().sum(-1)


def test_it_climbs_to_the_top():
    found = maximise(hill, 3, candidates=64, starts=4, steps=80)
    assert (found - TOP).abs().max() < 0.02


def test_it_stays_in_the_box():
    found = maximise(lambda x: x.sum(-1), 2, candidates=64, steps=60)
    assert torch.equal(found, torch.ones(2))


def test_it_takes_the_higher_of_two_hills_and_never_falls_below_what_it_saw():
    def two(x: torch.Tensor) -> torch.Tensor:
        return (-40 * (x - 0.7).square().sum(-1)).exp() + 2 * (-40 * (x + 0.5).square().sum(-1)).exp()

    assert (maximise(two, 2, candidates=400, steps=40) + 0.5).abs().max() < 0.02
    assert float(two(maximise(two, 2, candidates=400, steps=40, lr=5.0)[None])) > 1  # steps too large to climb


def test_points_that_are_known_to_be_good_are_looked_around():
    def needle(x: torch.Tensor) -> torch.Tensor:
        return (-50 * (x - 0.77).square().sum(-1)).exp()

    near = torch.full((1, 8), 0.7)
    assert float(needle(maximise(needle, 8, candidates=50, steps=40, near=near)[None])) > 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_decides(seed):
    found = [maximise(hill, 3, candidates=32, steps=2, seed=seed) for _ in range(2)]
    assert torch.equal(*found)
