import pytest
import torch
from torch.testing import assert_close

from levelhead.attacks._loss import dlr, margin, objective

Z = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 4.0, 2.0, 1.0]])
Y = torch.tensor([0, 2])


def test_the_values_of_the_paper():
    assert_close(margin(Z, Y), torch.tensor([-2.0, 2.0]))
    assert_close(dlr(Z, Y), torch.tensor([-2.0 / 2.5, 2.0 / 3.0]))
    towards = torch.tensor([3, 0])
    assert_close(dlr(Z, Y, towards), torch.tensor([-5.0 / (3.0 - (0.5 - 2.0) / 2), -2.0 / (4.0 - (1.0 + 0.0) / 2)]))
    assert_close(objective(Z, Y, "ce"), torch.tensor([-3.0, -2.0]))
    assert_close(objective(Z, Y, "ce", towards), torch.tensor([-2.0, 0.0]))
    assert_close(objective(Z, Y, "margin", towards), torch.tensor([-5.0, -2.0]))


@pytest.mark.parametrize("other", [None, torch.tensor([3, 0])])
def test_the_ratio_is_blind_to_shift_and_scale(other):
    assert_close(dlr(1e3 * Z - 7, Y, other), dlr(Z, Y, other))


def test_equal_logits_have_a_ratio():
    assert_close(dlr(torch.zeros(1, 4), torch.tensor([1])), torch.zeros(1))


@pytest.mark.parametrize("classes, other, needed", [(2, None, 3), (3, torch.tensor([1]), 4)])
def test_too_few_classes_are_an_error(classes, other, needed):
    with pytest.raises(ValueError, match=f"at least {needed} classes, got {classes}"):
        dlr(torch.zeros(1, classes), torch.tensor([0]), other)
