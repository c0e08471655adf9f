"""What every attack must do, whatever it searches by."""

import copy
import dataclasses

import pytest
import torch
from echo import EchoGaussian
from hypothesis import given
from hypothesis import strategies as st
from linear import Linear
from torch import nn
from torch.testing import assert_close

from levelhead.catalogue import parts
from levelhead.predictive import CategoricalMixture
from levelhead.types import CannotCompose, Reference

QUICK = {"steps": 6, "queries": 12, "rounds": 2, "targets": 3}  # of those fields that an attack has
SLACK = 1e-6


def quick(cls, **fields):
    """The attack with little to do."""
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in {**QUICK, **fields}.items() if name in known})


def norms(cls):
    return ("l2",) if cls.__name__ == "CW" else ("linf", "l2")


CASES = [(cls, norm) for cls in parts("attacks") for norm in norms(cls)]
BALLS = [(cls, norm) for cls, norm in CASES if "eps" in {field.name for field in dataclasses.fields(cls)}]
attacks = pytest.mark.parametrize("attack", [quick(cls, norm=norm) for cls, norm in CASES], ids=repr)


class Net(Linear):
    """A network with statistics, of five classes, on images of two channels."""

    def __init__(self, classes=5, scale=4.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, classes)
            )
        self.net[-1].weight.data *= scale

    def forward(self, x):
        return CategoricalMixture(self.net(x)[None])


class Flat(Net):
    """Constant, with a gradient that is zero."""

    def forward(self, x):
        return CategoricalMixture(0 * self.net(x)[None])


def images(n=8, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, 4, 4, generator=generator, dtype=dtype).mul(1.4).sub(0.2).clamp(0, 1)  # some at the bounds
    return x, torch.randint(5, (n,), generator=generator)


def run(attack, predictor, x, y, seed=0):
    return attack(predictor, x, y, torch.Generator().manual_seed(seed))


def lengths(change, norm):
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@pytest.mark.parametrize("cls, norm", BALLS, ids=lambda value: getattr(value, "__name__", value))
@given(eps=st.floats(0, 4), seed=st.integers(0, 10), double=st.booleans())
def test_nothing_ever_leaves_the_ball_or_the_bounds(cls, norm, eps, seed, double):
    dtype = torch.float64 if double else torch.float32
    x, y = images(3, seed=seed, dtype=dtype)
    predictor = Net().to(dtype)
    moved = run(quick(cls, norm=norm, eps=eps, steps=3, queries=4), predictor, x, y, seed)
    assert moved.dtype == dtype
    assert moved.shape == x.shape
    assert float(lengths(moved - x, norm).max()) <= eps + SLACK
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


@pytest.mark.parametrize("cls, norm", BALLS, ids=lambda value: getattr(value, "__name__", value))
def test_without_a_radius_nothing_moves(cls, norm):
    x, y = images()
    assert torch.equal(run(quick(cls, norm=norm, eps=0.0), Net(), x, y), x)


@attacks
def test_some_rows_are_fooled_and_the_rest_is_in_bounds(attack):
    predictor, (x, _) = Net(), images(32)
    y = predictor.eval()(x).label
    moved = run(dataclasses.replace(attack, eps=0.3) if hasattr(attack, "eps") else attack, predictor, x, y)
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert bool((predictor(moved).label != y).any())


@attacks
def test_nothing_of_the_predictor_changes(attack):
    predictor, (x, y) = Net(), images()
    predictor.train()
    predictor.net[0].eval()
    predictor.net[0].weight.requires_grad_(False)
    before, stream, clean = copy.deepcopy(predictor.state_dict()), torch.get_rng_state(), x.clone()
    with torch.no_grad():
        moved = run(attack, predictor, x, y)
    assert all(torch.equal(before[name], tensor) for name, tensor in predictor.state_dict().items())
    assert all(parameter.grad is None for parameter in predictor.parameters())
    assert [parameter.requires_grad for parameter in predictor.net[0].parameters()] == [False, True]
    assert predictor.training
    assert not predictor.net[0].training
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(x, clean)
    assert not moved.requires_grad


@attacks
def test_it_works_where_gradients_are_off(attack):
    predictor, (x, y) = Net(), images()
    plain = run(attack, predictor, x, y)
    with torch.no_grad():
        assert torch.equal(run(attack, predictor, x, y), plain)
    with torch.inference_mode():
        assert torch.equal(run(attack, predictor, x.clone(), y.clone()), plain)


@attacks
def test_a_row_does_not_see_its_neighbours(attack):
    predictor, (x, y) = Net().double(), images(8, dtype=torch.float64)
    whole = run(attack, predictor, x, y)
    others = torch.cat([x[:4], images(4, seed=9, dtype=torch.float64)[0]])
    assert_close(run(attack, predictor, others, y)[:4], whole[:4])
    assert_close(run(attack, predictor, x[:4], y[:4]), whole[:4])  # the first rows keep their seeds


@attacks
def test_the_seed_decides(attack):
    predictor, (x, y) = Net(), images()
    assert torch.equal(run(attack, predictor, x, y, 3), run(attack, predictor, x, y, 3))


@attacks
def test_a_flat_predictor_gives_no_nan(attack):
    x, y = images()
    moved = run(attack, Flat(), x, y)
    assert bool(moved.isfinite().all())
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


@attacks
def test_adding_to_the_logits_changes_nothing(attack):
    predictor, shifted, (x, y) = Net().double(), Net().double(), images(dtype=torch.float64)
    shifted.net[-1].bias.data -= 50.0  # all logits negative, which is nothing special
    assert_close(run(attack, shifted, x, y), run(attack, predictor, x, y))


@attacks
def test_real_targets_are_refused(attack):
    with pytest.raises(CannotCompose, match="one label a row"):
        run(attack, EchoGaussian(), torch.rand(4, 2), torch.rand(4, 1))


@attacks
def test_a_predictor_without_a_gradient_is_refused_where_one_is_needed(attack):
    class Rounded(Net):
        differentiable = False

    x, y = images()
    if not getattr(attack, "by_gradient", True):
        assert run(attack, Rounded(), x, y).shape == x.shape
        return
    with pytest.raises(CannotCompose, match="Rounded"):
        run(attack, Rounded(), x, y)


@pytest.mark.parametrize("cls", parts("attacks"), ids=lambda cls: cls.__name__)
def test_a_spec_is_a_plain_value_with_a_paper(cls):
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    assert isinstance(cls.reference, Reference)


@pytest.mark.parametrize(
    "cls, field",
    [
        (cls, field.name)
        for cls in parts("attacks")
        for field in dataclasses.fields(cls)
        if field.name not in ("random_start", "stop", "norm", "loss")  # literals and switches: the type says it
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_settings_that_mean_nothing_are_errors(cls, field):
    with pytest.raises(ValueError, match=field):
        cls(**{field: (1.0, 0.0) if field == "bounds" else -1})
