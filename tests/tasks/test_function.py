"""Functions without noise: their range, their domain, their formulas."""

import math

import pytest
import torch

from levelhead.noiseless import Noiseless
from levelhead.tasks.function import CURVES, NAMES, SURFACES, function
from levelhead.tasks.load import load_task


@pytest.mark.parametrize("name", NAMES)
def test_it_is_scaled_to_the_unit_range_of_its_domain(name):
    task = function(name, num_test=2001)
    num_inputs = 2 if name in SURFACES else 1
    assert task.train.x.shape == (8, num_inputs)
    assert len(task.test) == (2001 if num_inputs == 1 else 45**2)
    assert torch.equal(task.test.x.amin(0), -torch.ones(num_inputs))
    assert torch.equal(task.test.x.amax(0), torch.ones(num_inputs))
    assert float(task.test.y.min()) == pytest.approx(-1, abs=1e-3 if num_inputs == 1 else 1e-2)
    assert float(task.test.y.max()) == pytest.approx(1, abs=1e-3)
    assert float(task.test.y.abs().max()) <= 1
    assert isinstance(task.likelihood, Noiseless)


def test_equal_inputs_have_equal_values_whatever_the_split():
    task = function("forrester", n=20)
    curve = CURVES["forrester"]
    for split in (task.train, task.calibration):
        z = (split.x.double() + 1) / 2
        raw = (6 * z - 2) ** 2 * torch.sin(12 * z - 4)
        assert torch.allclose(raw, curve(split.x.double()))
        centred = (raw - raw.mean()) / (split.y - split.y.mean())
        assert float(centred.std()) < 1e-3  # one factor between them


def test_the_formulas_at_known_points():
    at = torch.tensor([0.1], dtype=torch.float64)  # Levy's minimum is at 1 of its own units
    assert float(CURVES["levy"](at)) == pytest.approx(0, abs=1e-20)
    assert float(CURVES["sine"](torch.tensor([0.25]))) == pytest.approx(math.sin(math.pi / 2))


@pytest.mark.parametrize(
    "name, at, value",
    [
        ("branin", (math.pi, 2.275), 0.397887),
        ("camel", (0.0898, -0.7126), -1.031628),
        ("styblinski", (-2.903534, -2.903534), 2 * -39.16617),
    ],
)
def test_surfaces_have_their_known_minima(name, at, value):
    domain = {"branin": ((-5, 0), (10, 15)), "camel": ((-3, -2), (3, 2)), "styblinski": ((-5, -5), (5, 5))}
    low, high = torch.tensor(domain[name], dtype=torch.float64)
    x, y = 2 * (torch.tensor(at, dtype=torch.float64) - low) / (high - low) - 1
    assert float(SURFACES[name](x, y)) == pytest.approx(value, abs=1e-4)


def test_it_has_a_name_and_a_seed():
    assert torch.equal(load_task("function/levy", seed=3).train.x, function("levy", seed=3).train.x)
    assert not torch.equal(function("levy", seed=4).train.x, function("levy", seed=3).train.x)
    with pytest.raises(ValueError, match="levi"):
        function("levi")
    with pytest.raises(ValueError, match="at least 2"):
        function("levy", n=1)
