import itertools

import pytest
import torch
from attacks.bent import generator
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks._ball import Ball, length, unit
from levelhead.attacks._streams import Streams
from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD

EVERYWHERE = (-100.0, 100.0)


def streams(rows):
    return Streams(range(rows))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_steepest_step_has_length_one_and_rises_most(norm):
    ball, gradient = Ball(1.0, norm, EVERYWHERE), torch.randn(50, 3, 2)
    step = ball.steepest(gradient)
    assert_close(length(step, norm), torch.ones(50))
    rise = (gradient * step).flatten(1).sum(1)
    dual = torch.linalg.vector_norm(gradient.flatten(1), ord=1 if norm == "linf" else 2, dim=1)
    assert_close(rise, dual)


def test_tiny_gradients_have_a_direction_and_zero_ones_none():
    ball, gradient = Ball(1.0, "l2", EVERYWHERE), torch.tensor([[3e-30, 4e-30], [0.0, 0.0], [torch.nan, 1.0]])
    assert_close(ball.steepest(gradient), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]))
    assert_close(unit(torch.tensor([[2e25, 0.0]]), "l2"), torch.tensor([[1.0, 0.0]]))


def test_projection_in_l2_is_radial_and_leaves_the_inside_alone():
    ball, x = Ball(2.0, "l2", EVERYWHERE), torch.zeros(2, 2)
    assert_close(ball.project(torch.tensor([[3.0, 4.0], [0.5, 0.5]]), x), torch.tensor([[1.2, 1.6], [0.5, 0.5]]))


def test_starts_are_uniform_in_the_ball():
    x = torch.zeros(4000, 3)
    for norm, dim in (("linf", 3), ("l2", 3)):
        start = Ball(0.5, norm, EVERYWHERE).start(x, streams(4000), torch.arange(4000))
        share = (length(start, norm) / 0.5) ** dim  # volume inside: uniform on [0, 1]
        assert float(share.max()) <= 1 + 1e-6
        error = 4 * (1 / 12 / 4000) ** 0.5
        assert float(share.mean()) == pytest.approx(0.5, abs=error)
        assert_close(start.mean(0), torch.zeros(3), atol=0.03, rtol=0.0)


def test_the_edge_is_the_surface():
    x = torch.zeros(100, 3)
    for norm in ("linf", "l2"):
        edge = Ball(0.5, norm, EVERYWHERE).edge(x, streams(100), torch.arange(100))
        assert_close(length(edge, norm), torch.full((100,), 0.5))


def test_a_rows_draws_depend_on_its_seed_alone():
    like, rows = torch.zeros(3, 2), torch.tensor([0, 1, 2])
    first, second = Streams([7, 8, 9]), Streams([8, 9, 1])
    drawn, other = first.uniform(rows, like=like), second.uniform(rows, like=like)
    assert torch.equal(drawn[1:], other[:2])
    again = first.normal(torch.tensor([2]), like=like[:1])
    assert torch.equal(again, second.normal(torch.tensor([1]), like=like[:1]))


@pytest.mark.parametrize("attack", [FGSM(0.3, "l2"), PGD(0.3, norm="l2", random_start=False)], ids=repr)
def test_in_l2_a_linear_margin_falls_by_eps_times_the_weights_length(attack):
    predictor, (x, y) = Linear(), images(low=0.4, high=0.6)
    moved = attack(predictor, x, y, generator())
    fall = predictor.signed_margin(x, y) - predictor.signed_margin(moved, y)
    assert_close(fall, torch.full_like(fall, 0.3 * float(predictor.weight.detach().norm())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_of_pgd_is_fgsm_to_the_bit_in_both_norms(norm):
    predictor, (x, y) = Linear(), images()
    one = PGD(eps=0.2, steps=1, random_start=False, norm=norm)(predictor, x, y, generator())
    assert torch.equal(one, FGSM(eps=0.2, norm=norm)(predictor, x, y, generator()))


def test_a_larger_radius_never_helps_a_linear_defence():
    predictor, (x, _) = Linear(scale=0.2), images(100)
    y = predictor(x).label
    standing = [
        predictor(PGD(eps=eps, steps=5)(predictor, x, y, generator())).label == y for eps in (0.0, 0.02, 0.05, 0.2)
    ]
    assert bool(standing[0].all())
    for near, far in itertools.pairwise(standing):
        assert bool((far <= near).all())
    assert standing[-1].sum() < standing[0].sum()
