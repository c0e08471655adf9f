"""Functions without noise: their range, their domain, their formulas."""

import math

import pytest
import torch

from levelhead.noiseless import Noiseless
from levelhead.tasks.function import CURVES, NAMES, function
from levelhead.tasks.load import load_task


@pytest.mark.parametrize("name", NAMES)
def test_it_is_scaled_to_the_unit_range_of_its_domain(name):
    task = function(name, num_test=2001)
    assert len(task.train) == 8
    assert float(task.test.x.min()) == -1
    assert float(task.test.x.max()) == 1
    assert float(task.test.y.min()) == pytest.approx(-1, abs=1e-3)
    assert float(task.test.y.max()) == pytest.approx(1, abs=1e-3)
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


def test_it_has_a_name_and_a_seed():
    assert torch.equal(load_task("function/levy", seed=3).train.x, function("levy", seed=3).train.x)
    assert not torch.equal(function("levy", seed=4).train.x, function("levy", seed=3).train.x)
    with pytest.raises(ValueError, match="levi"):
        function("levi")
    with pytest.raises(ValueError, match="at least 2"):
        function("levy", n=1)
