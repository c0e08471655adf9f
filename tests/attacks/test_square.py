import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import images

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
    with pytest.raises(ValueError, match="norm"):
        Square(norm="l2")
