"""Consistency of moved views: exact for what sees position and for what does not."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.analyses.shift_consistency import agreement, shift_consistency, views

X = torch.arange(5 * 2 * 8 * 8, dtype=torch.float32).reshape(5, 2, 8, 8)


def test_circular_views_are_rolls():
    seen = list(views(X, max_shift=3, num_views=3, pad="circular"))
    for view in seen:
        for image, moved in zip(X, view, strict=True):
            rolls = [image.roll((a, b), (1, 2)) for a in range(-3, 4) for b in range(-3, 4)]
            assert any(torch.equal(moved, roll) for roll in rolls)
    assert not torch.equal(seen[0], seen[1])


def test_crops_hold_only_what_the_image_holds():
    for view in views(X, max_shift=3, num_views=2, pad="crop"):
        assert view.shape == (5, 2, 5, 5)
        for image, crop in zip(X, view, strict=True):
            top, left = divmod(int(crop[0, 0, 0] - image[0, 0, 0]), 8)
            assert torch.equal(crop, image[:, top : top + 5, left : left + 5])


def test_each_image_has_its_own_moves_and_a_seed_repeats_them():
    first, second = next(views(X, max_shift=3, num_views=2)), next(views(X, max_shift=3, num_views=2))
    assert torch.equal(first, second)
    assert not torch.equal(first, next(views(X, max_shift=3, num_views=2, seed=1)))
    same = X[:1].expand(5, -1, -1, -1)
    moved = next(views(same, max_shift=3, num_views=2))
    assert any(not torch.equal(moved[0], other) for other in moved[1:])


def test_what_does_not_see_position_always_agrees():
    x = torch.rand(20, 2, 8, 8)
    found = shift_consistency(lambda x: x.mean((2, 3)), x, pad="circular", max_shift=3)
    assert (found.share, found.error, found.rows) == (1.0, 0.0, 20)


def test_answers_at_random_agree_by_chance():
    found = shift_consistency(lambda x: torch.rand(len(x), 4), torch.rand(2000, 1, 8, 8), num_views=4)
    assert found.share == pytest.approx(0.25, abs=4 * found.error)


def test_agreement_by_hand():
    answers = torch.tensor([[0, 1], [0, 2], [1, 1]])  # pairs: 1 of 3, and 1 of 3
    assert agreement(answers).share == pytest.approx(1 / 3)
    assert agreement(torch.tensor([[0, 1], [0, 0]])).share == 0.5
    assert_close(agreement(torch.tensor([[0, 1], [0, 0]])).error, 0.5)


def test_batches_do_not_matter():
    x = torch.rand(11, 1, 8, 8)
    one = shift_consistency(lambda x: x[:, 0, :4, 0], x, batch_size=3)
    assert one == shift_consistency(lambda x: x[:, 0, :4, 0], x, batch_size=100)


@pytest.mark.parametrize("how", [{"max_shift": 0}, {"num_views": 1}, {"pad": "mirror"}, {"max_shift": 8}], ids=repr)
def test_bad_arguments_are_named(how):
    with pytest.raises(ValueError, match=next(iter(how))):
        shift_consistency(lambda x: x.mean((2, 3)), X, **how)
