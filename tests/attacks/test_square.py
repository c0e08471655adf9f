import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import images

from levelhead.attacks._bumps import bump, moved_bump
from levelhead.attacks.square import Square
from levelhead.types import CannotCompose


def test_sides_follow_the_published_shares():
    square = Square()
    sides = [square.side(query, 32, 32) for query in (1, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert sides == [29, 29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert square.side(1, 8, 64) == 8  # no side is longer than the image


def test_it_starts_with_stripes():
    predictor, (x, _) = Bent(), images(20, low=0.3, high=0.7)
    y = predictor(x).label
    moved = Square(eps=0.05, queries=1)(predictor, x, y, generator())
    change = (moved - x)[right(predictor, x, y) & ((moved != x).flatten(1).any(1))]
    assert len(change)
    assert torch.allclose(change.abs(), torch.full_like(change, 0.05), atol=1e-6)
    assert torch.allclose(change, change[:, :, :1].expand_as(change), atol=1e-6)


def test_a_query_changes_one_square():
    predictor, (x, _) = Bent(scale=8.0), images(60, low=0.3, high=0.7)
    y = predictor(x).label
    one, two = (Square(eps=0.01, queries=n, p=0.3)(predictor, x, y, generator()) for n in (1, 2))
    changed = (one != two).any(1)
    assert bool(changed.flatten(1).any(1).any())
    for row in changed[changed.flatten(1).any(1) & (one != x).flatten(1).any(1)]:
        assert 1 <= int(row.any(0).sum()) <= 2  # side round(sqrt(0.3 * 16)) = 2
        assert 1 <= int(row.any(1).sum()) <= 2


def test_more_queries_never_help_the_defence():
    predictor, (x, _) = Bent(), images(100)
    y = predictor(x).label
    few, many = (right(predictor, Square(eps=0.06, queries=n)(predictor, x, y, generator()), y) for n in (5, 200))
    assert bool((many <= few).all())
    assert many.sum() < few.sum()


def test_it_counts_its_forward_passes():
    predictor, (x, y) = Bent(scale=0.0), images(7)
    calls = []
    predictor.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    Square(queries=9)(predictor, x, torch.zeros_like(y), generator())
    assert calls == [7] * 10  # the clean rows, then as many as were asked for


def test_tables_are_refused():
    with pytest.raises(CannotCompose, match="images"):
        Square()(Bent(), torch.rand(3, 16), torch.zeros(3, dtype=torch.long), generator())


def test_bumps_are_the_published_ones():
    found = bump(5)
    upper = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    terms = [1.0, 1 / 4, 1 / 9]
    for y in range(2):
        for x in range(5):
            upper[y, x] = sum(terms[max(abs(y - 1), abs(x - 2)) :])
    lower = torch.zeros(3, 5)
    for y in range(3):
        for x in range(5):
            lower[y, x] = -sum(terms[max(abs(y - 1), abs(x - 2)) :])
    both = torch.cat([upper / upper.norm(), lower / lower.norm()])
    torch.testing.assert_close(found, both / both.norm())
    assert torch.equal(bump(5, flipped=True), found.T)


def test_a_bump_takes_the_length_of_another_window():
    change = torch.randn(6, 2, 12, 10, generator=generator())
    change = 0.7 * change / change.flatten(1).norm(dim=1)[:, None, None, None]
    numbers = torch.rand(6, 7, generator=generator(1))
    moved = moved_bump(change, numbers, side=3, eps=0.7)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((6,), 0.7))
    for row in range(6):
        (top, left), (low, right_) = ((int(numbers[row, k] * 10), int(numbers[row, k + 1] * 8)) for k in (0, 2))
        into, out_of = torch.zeros(12, 10, dtype=torch.bool), torch.zeros(12, 10, dtype=torch.bool)
        into[top : top + 3, left : left + 3] = True
        out_of[low : low + 3, right_ : right_ + 3] = True
        assert bool((moved[row][:, out_of & ~into] == 0).all())
        torch.testing.assert_close(moved[row][:, ~(into | out_of)], change[row][:, ~(into | out_of)])
        for channel in range(2):
            held = change[row, channel][into | out_of].norm()
            torch.testing.assert_close(moved[row, channel][into].norm(), held)


def test_in_l2_sides_are_odd_and_queries_help():
    square = Square(norm="l2", eps=0.3)
    assert [square.side(query, 32, 32) for query in (1, 11, 51, 10_000)] == [29, 21, 15, 3]
    assert [square.side(1, size, size) for size in (3, 4, 6)] == [3, 3, 5]
    predictor, (x, _) = Bent(), images(100)
    y = predictor(x).label
    few, many = (
        right(predictor, Square(norm="l2", eps=0.2, queries=n)(predictor, x, y, generator()), y) for n in (2, 150)
    )
    assert bool((many <= few).all())
    assert many.sum() < few.sum() < len(x)
