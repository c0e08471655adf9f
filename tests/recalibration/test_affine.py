"""Affine maps: the fit is the minimum of a convex problem, and a closed form where there is one."""

import torch
import torch.nn.functional as F
from posthoc.small import Table

from levelhead.recalibration.affine import Affine, affine, features, fitted_affine, minimised, off_diagonal
from levelhead.recalibration.held_out import ClassRows


def rows(n=300, k=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, dtype=torch.float64, generator=generator)
    truth = logits @ (torch.eye(k).double() * 0.5 + 0.1).mT + torch.linspace(-1, 1, k).double()
    y = torch.multinomial(truth.softmax(-1), 1, generator=generator)[:, 0]
    return ClassRows(logits.log_softmax(-1), y)


def none(weight, _):
    return weight.new_zeros(())


def test_the_gradient_vanishes_at_the_fit():
    held = rows()
    for start, centred in ((torch.ones(4), True), (torch.eye(4), True), (torch.eye(4), False)):
        weight, bias = fitted_affine(held, weight=start, centred=centred, penalty=none)
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        loss = F.cross_entropy(affine(features(held.log_probs, centred=centred), w, b), held.y)
        loss = loss + 1e-6 * ((w - start).square().sum() + b.square().sum())
        assert all(g.abs().max() < 1e-5 for g in torch.autograd.grad(loss, (w, b)))


def test_penalties_shrink_what_they_name():
    held = rows()
    free, _ = fitted_affine(held, weight=torch.eye(4), centred=True, penalty=none)
    stiff, shift = fitted_affine(
        held, weight=torch.eye(4), centred=True, penalty=lambda w, b: 1e3 * off_diagonal(w) + 1e3 * b.square().sum()
    )
    assert off_diagonal(stiff) < 1e-6 < off_diagonal(free)
    assert shift.abs().max() < 1e-3
    assert float(off_diagonal(torch.ones(3, 3))) == 6.0


def test_a_shared_slope_is_one_number():
    weight, bias = fitted_affine(rows(), weight=torch.ones(4), centred=True, penalty=none, shared=True)
    assert weight.unique().numel() == 1
    assert bias.unique().numel() == 4


def test_soft_labels_are_fitted_by_cross_entropy():
    held = rows()
    soft = ClassRows(held.log_probs, F.one_hot(held.y, 4).double())
    for a, b in zip(*(fitted_affine(r, weight=torch.ones(4), centred=True, penalty=none) for r in (held, soft)),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_separable_rows_give_finite_numbers():
    logits = torch.eye(3).double().repeat(5, 1) * 4
    held = ClassRows(logits.log_softmax(-1), torch.arange(3).repeat(5))
    for start in (torch.ones(3), torch.eye(3)):
        weight, bias = fitted_affine(held, weight=start, centred=True, penalty=none)
        assert weight.isfinite().all()
        assert bias.isfinite().all()


def test_minimised_finds_a_parabolas_foot_without_leaving_gradients():
    with torch.no_grad():
        (x,) = minimised(lambda x: (x - 3).square().sum() + 1, torch.zeros(2))
    torch.testing.assert_close(x, torch.full((2,), 3.0, dtype=torch.float64))
    assert not x.requires_grad


def test_a_scalar_weight_is_temperature():
    held = rows()
    scaled = Affine(Table(), torch.full((4,), 1 / 1.7), torch.zeros(4), centred=True)
    torch.testing.assert_close(
        scaled.mapped(held.log_probs), (held.log_probs / 1.7).log_softmax(-1), rtol=1e-6, atol=1e-6
    )
