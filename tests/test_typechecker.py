"""The checker that all other tests rely on must itself refuse what is wrong."""

from collections.abc import Callable
from typing import Any, Protocol, Self

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor
from typechecker import checkable

from levelhead.likelihood import Categorical

Scores = Float[Tensor, "batch class"]


class Loss(Protocol):
    def loss(self) -> Float[Tensor, ""]: ...


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError, match="outputs"):
        Categorical(num_classes=3).loss(torch.zeros(3), torch.zeros(2, dtype=torch.long))


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeCheckError, match="num_classes"):
        Categorical(num_classes="3")


@pytest.mark.parametrize(
    "hint, expected",
    [
        (Self, Any),
        (Loss, Any),
        (Loss | None, Any | None),
        (tuple[Loss, ...], tuple[Any, ...]),
        (dict[str, Loss], dict[str, Any]),
        (list[int], list[int]),
        (Callable[[Loss], int], Callable[[Loss], int]),
        (Scores, Scores),
        (int | None, int | None),
    ],
    ids=str,
)
def test_only_self_and_protocols_are_left_out(hint, expected):
    assert checkable(hint) == expected
