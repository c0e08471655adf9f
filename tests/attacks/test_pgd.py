import itertools

import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD


class Wavy(Linear):
    """Its margin goes up and down within one step."""

    def z(self, x):
        return 3 * torch.sin(4 * super().z(x))


def test_one_step_from_x_is_fgsm_to_the_bit():
    predictor, (x, y) = Wavy(), images(n=64)
    one = PGD(eps=0.5, steps=1, random_start=False)(predictor, x, y, generator())
    assert torch.equal(one, FGSM(eps=0.5)(predictor, x, y, generator()))
    assert bool((right(predictor, one, y) > right(predictor, x, y)).any())  # also where the step goes too far


def test_a_linear_margin_falls_by_the_whole_radius():
    predictor, (x, y) = Linear(), images()
    moved = PGD(eps=0.1, steps=10)(predictor, x, y, generator())
    fall = predictor.signed_margin(x, y) - predictor.signed_margin(moved, y)
    assert_close(fall, torch.full_like(fall, 0.1 * float(predictor.weight.detach().abs().sum())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 0.03, 2.0])
def test_the_result_is_in_the_box_and_in_bounds(eps):
    x, y = images(n=32, low=0.0, high=1.0)
    moved = PGD(eps=eps, steps=5, restarts=2)(Bent(), x, y, generator())
    assert float((moved - x).abs().max()) <= eps + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert torch.equal(moved, x) == (eps == 0)


def test_more_steps_of_a_size_never_help_the_defence():
    predictor, (x, _) = Bent(), images(n=200)
    y = predictor(x).label
    standing = [
        right(predictor, PGD(eps=0.08, steps=steps, step_size=0.02)(predictor, x, y, generator()), y)
        for steps in (1, 3, 10, 30)
    ]
    for fewer, more in itertools.pairwise(standing):
        assert bool((more <= fewer).all())
    assert standing[-1].sum() < standing[0].sum()


def test_more_restarts_never_help_the_defence():
    predictor, (x, _) = Bent(), images(n=200)
    y = predictor(x).label
    once, often = (
        right(predictor, PGD(eps=0.08, steps=2, step_size=0.02, restarts=restarts)(predictor, x, y, generator()), y)
        for restarts in (1, 6)
    )
    assert bool((often <= once).all())
    assert often.sum() < once.sum()


def test_iterations_beat_the_single_step():
    predictor, (x, _) = Bent(), images(n=300)
    y = predictor(x).label
    attacks = FGSM(eps=0.1), PGD(eps=0.1, steps=20)
    single, many = (right(predictor, attack(predictor, x, y, generator()), y).sum() for attack in attacks)
    assert many < single < len(x)


def test_it_is_as_strong_as_foolbox():
    foolbox = pytest.importorskip("foolbox")
    predictor, (x, _) = Bent(), images(n=300)
    y = predictor(x).label
    theirs = foolbox.attacks.LinfPGD(rel_stepsize=0.125, steps=20, random_start=False)
    model = foolbox.PyTorchModel(predictor.net.eval(), bounds=(0, 1), device="cpu")
    _, moved, _ = theirs(model, x, y, epsilons=0.05)
    ours = PGD(eps=0.05, steps=20, random_start=False)(predictor, x, y, generator())
    assert right(predictor, ours, y).sum() <= right(predictor, moved, y).sum()


def test_the_seed_of_the_start_decides():
    predictor, (x, y) = Bent(), images()
    first, same, other = (PGD(steps=2)(predictor, x, y, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"eps": -1.0}, {"restarts": 2, "random_start": False}]
)
def test_settings_that_mean_nothing_are_errors(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        PGD(**fields)
