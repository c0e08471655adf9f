"""Matrix scaling: penalties between vector scaling and the free matrix."""

import pytest
import torch
from posthoc.calibrated import check_both_orders, check_it_helps, gradient_reaches, members_and_task, nll

from levelhead.posthoc.matrix_scaling import MatrixScaling
from levelhead.posthoc.vector_scaling import VectorScaling


def test_it_helps_in_both_orders():
    check_it_helps(MatrixScaling())
    check_both_orders(MatrixScaling())
    assert gradient_reaches(MatrixScaling()) > 0.01


def test_it_lies_between_a_diagonal_and_a_free_matrix():
    members, task = members_and_task()
    free = nll(MatrixScaling(0.0, 0.0)(members[0], task), task)
    default = nll(MatrixScaling()(members[0], task), task)
    stiff = MatrixScaling(1e3, 0.0)(members[0], task)
    vector = VectorScaling()(members[0], task)
    assert free <= default <= nll(stiff, task) + 1e-9
    torch.testing.assert_close(stiff.weight.diagonal(), vector.weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(stiff.bias, vector.bias, rtol=1e-3, atol=1e-3)


def test_a_shift_of_a_networks_logits_changes_nothing():
    members, task = members_and_task()
    shifted = type(members[0])(members[0].logits + torch.randn(1, 600, 1, dtype=torch.float64))
    for name in ("weight", "bias"):
        found = [getattr(MatrixScaling()(predictor, task), name) for predictor in (members[0], shifted)]
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_penalties_are_not_negative():
    with pytest.raises(ValueError, match="penalties"):
        MatrixScaling(off_diagonal=-1.0)
