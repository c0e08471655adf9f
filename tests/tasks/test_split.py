"""Batches hand out every row exactly once; content decides hashes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from levelhead.tasks.augment import Augment
from levelhead.tasks.split import Split, unlabelled


def numbered(n):
    """Rows that carry their own number as feature and as label."""
    return Split("train", torch.arange(n).float().unsqueeze(1), torch.arange(n))


def pictures(n=20):
    x = torch.randint(0, 256, (n, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return Split("train", x, torch.arange(n))


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_batches_cover_each_row_exactly_once(n, size, seed):
    split = numbered(n)
    batches = list(split.batches(size, torch.Generator().manual_seed(seed)))
    rows = torch.cat([batch.index for batch in batches])
    assert torch.equal(rows.sort().values, torch.arange(n))
    for batch in batches:
        assert torch.equal(batch.x[:, 0].long(), batch.index)
        assert torch.equal(batch.y, batch.index)
        assert len(batch.y) <= size + 1
    assert split.num_batches(size) == len(batches)
    assert size == 1 or n == 1 or min(len(batch.y) for batch in batches) > 1


@given(n=st.integers(1, 60), size=st.integers(1, 70))
def test_ordered_batches_are_the_split(n, size):
    batches = list(numbered(n).ordered(size))
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(n))
    assert torch.equal(torch.cat([batch.y for batch in batches]), torch.arange(n))
    assert all(len(batch.y) == size for batch in batches[:-1])


def test_a_row_left_over_joins_the_batch_before():
    assert [len(b.y) for b in numbered(9).batches(4, torch.Generator())] == [4, 5]
    assert [len(b.y) for b in numbered(10).batches(4, torch.Generator())] == [4, 4, 2]
    assert [len(b.y) for b in numbered(3).batches(1, torch.Generator())] == [1, 2]


def test_batches_follow_their_generator():
    def epoch(seed):
        batches = pictures().batches(6, torch.Generator().manual_seed(seed), augment=Augment(crop=2))
        return [(batch.x, batch.index) for batch in batches]

    for (x, index), (again_x, again_index) in zip(epoch(1), epoch(1), strict=True):
        assert torch.equal(x, again_x)
        assert torch.equal(index, again_index)
    assert not torch.equal(epoch(1)[0][1], epoch(2)[0][1])


def test_batches_do_not_touch_the_global_stream_or_the_rows():
    split, before = pictures(), torch.get_rng_state()
    kept = split.x.clone()
    for batch in split.batches(6, torch.Generator(), augment=Augment(crop=2)):
        batch.x.zero_()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(split.x, kept)


def test_pixels_come_out_between_zero_and_one():
    split = pictures()
    for batches in (split.ordered(7), split.batches(7, torch.Generator())):
        for batch in batches:
            assert batch.x.dtype == torch.float32
            assert torch.equal(batch.x, split.x[batch.index].float() / 255)


def test_no_size_is_the_full_batch_clean_and_in_order():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert pictures().num_batches(None) == 1
    (batch,) = pictures().batches(None, generator, augment=Augment(crop=2))
    assert torch.equal(batch.index, torch.arange(20))
    assert torch.equal(batch.x, pictures().x.float() / 255)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("size", [0, -3])
def test_refuses_batches_without_rows(size):
    with pytest.raises(ValueError, match="batch size"):
        next(numbered(3).batches(size, torch.Generator()))
    with pytest.raises(ValueError, match="batch size"):
        next(numbered(3).ordered(size))


def test_hashes_are_of_the_content():
    split = pictures()
    order = torch.tensor([4, 0, 19])
    assert split.take(order).row_hashes == tuple(split.row_hashes[i] for i in order)
    assert len(set(split.row_hashes)) == len(split)
    relabelled = Split("train", split.x, split.y + 1)
    assert not set(relabelled.row_hashes) & set(split.row_hashes)
    as_floats = Split("train", split.x.float() / 255, split.y)
    assert not set(as_floats.row_hashes) & set(split.row_hashes)


def test_the_digest_tells_content_and_order():
    split = pictures()
    assert split.digest == Split("other name", split.x.clone(), split.y.clone()).digest == split.to("cpu").digest
    assert split.digest != split.take(torch.arange(19, -1, -1)).digest
    changed = split.x.clone()
    changed[0, 0, 0, 0] ^= 1
    assert split.digest != Split("train", changed, split.y).digest
    assert numbered(5).digest == "db05bc5a3e64"  # what is on disk somewhere must not change


def test_take_counts_from_the_front_or_goes_by_place():
    assert numbered(5).take(2).y.tolist() == [0, 1]
    assert numbered(5).take(torch.tensor([3, 3, 1])).y.tolist() == [3, 3, 1]
    with pytest.raises(ValueError, match="6 rows of 5"):
        numbered(5).take(6)


def test_unlabelled_rows_have_no_class():
    assert unlabelled("ring", torch.zeros(3, 2)).y.tolist() == [-1, -1, -1]


LABELS = torch.zeros(2, dtype=torch.int64)
FEATURES = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "x, y, says",
    [
        (FEATURES[:0], LABELS[:0], "at least one"),
        (FEATURES, LABELS[:1], "same number"),
        (LABELS.unsqueeze(1), LABELS, "wants uint8 pixels"),
        (torch.zeros(2, 3, dtype=torch.uint8), LABELS, "wants uint8 pixels"),
        (FEATURES, LABELS.float(), "int64 labels"),
        (FEATURES, LABELS.int(), "int64 labels"),
        (FEATURES / 0, LABELS, "x holds NaN"),
        (FEATURES, FEATURES + torch.inf, "y holds NaN"),
        (torch.full((2, 1, 4, 4), 255.0), LABELS, "undo the normalisation"),
    ],
)
def test_refuses_what_is_no_data(x, y, says):
    with pytest.raises(ValueError, match=says):
        Split("train", x, y)
