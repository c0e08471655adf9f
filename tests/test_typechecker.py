"""The checker that all other tests rely on must itself refuse what is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor
from typechecker import check, checkable

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


@check
def sums(x: Float[Tensor, "row feature"], y: Float[Tensor, " row"], keep: int = 0) -> Float[Tensor, " row"]:
    return (x.sum(-1) + y)[keep:]


@check
def counted(size: int) -> Int[Tensor, "{size}"]:
    return torch.arange(3)


@check
def rows(x: Float[Tensor, "row feature"]) -> Iterator[Tensor]:
    yield from x


@check
@dataclass(frozen=True)
class Point:
    x: float


def test_an_axis_means_the_same_in_all_arguments_and_the_result():
    assert sums(torch.ones(3, 2), torch.ones(3)).tolist() == [3, 3, 3]
    with pytest.raises(TypeCheckError, match="y="):
        sums(torch.ones(3, 2), torch.ones(4))
    with pytest.raises(TypeCheckError, match="return"):
        sums(torch.ones(3, 2), torch.ones(3), keep=1)


def test_a_call_does_not_see_the_axes_of_another():
    @check
    def outer(x: Float[Tensor, "row feature"]) -> Float[Tensor, " row"]:
        assert sums(torch.ones(4, 5), torch.ones(4)).shape == (4,)
        return x.sum(-1)

    assert outer(torch.ones(3, 2)).shape == (3,)


def test_an_axis_may_be_an_argument():
    assert len(counted(3)) == 3
    with pytest.raises(TypeCheckError):
        counted(4)


def test_generators_and_dataclasses_are_checked_on_their_way_in():
    assert len(list(rows(torch.ones(3, 2)))) == 3
    with pytest.raises(TypeCheckError):
        list(rows(torch.ones(3)))
    assert Point(1).x == 1
    with pytest.raises(TypeCheckError):
        Point("one")


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
