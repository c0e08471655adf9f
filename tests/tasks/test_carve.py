"""What is carved out is disjoint, of the asked size, balanced, and the same for the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from levelhead.tasks.carve import carve
from levelhead.tasks.split import Split


def pool(n, num_classes=3, copies=1):
    return Split("all", (torch.arange(n) // copies).float().unsqueeze(1), torch.arange(n) // copies % num_classes)


@given(n=st.integers(10, 80), val=st.integers(1, 4), test=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_row_goes_to_exactly_one_split(n, val, test, seed):
    splits = carve(pool(n), {"val": val, "test": test}, seed=seed)
    assert [(name, len(split), split.name) for name, split in splits.items()] == [
        ("train", n - val - test, "train"),
        ("val", val, "val"),
        ("test", test, "test"),
    ]
    rows = torch.cat([split.x[:, 0] for split in splits.values()])
    assert torch.equal(rows.sort().values, torch.arange(n).float())


def test_classes_keep_their_proportions():
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    splits = carve(Split("all", torch.arange(100.0).unsqueeze(1), y), {"val": 20, "test": 30}, seed=0)
    assert splits["val"].y.bincount().tolist() == [12, 6, 2]
    assert splits["test"].y.bincount().tolist() == [18, 9, 3]


def test_balanced_pools_give_balanced_splits():
    splits = carve(pool(300), {"val": 60, "test": 90}, seed=3)
    assert splits["val"].y.bincount().tolist() == [20] * 3
    assert splits["test"].y.bincount().tolist() == [30] * 3


def test_the_seed_decides():
    first, again, other = (carve(pool(50), {"val": 20}, seed=seed)["val"].y.tolist() for seed in (0, 0, 1))
    rows = [carve(pool(50), {"val": 20}, seed=seed)["val"].x.tolist() for seed in (0, 0, 1)]
    assert first == again
    assert rows[0] == rows[1] != rows[2]
    assert len(other) == 20


def test_twins_stay_together_in_train():
    twins = pool(20, copies=2)
    alone = Split("alone", torch.arange(100.0, 110.0).unsqueeze(1), torch.arange(10) % 3)
    both = Split("all", torch.cat([twins.x, alone.x]), torch.cat([twins.y, alone.y]))
    splits = carve(both, {"val": 3, "test": 5}, seed=0)
    assert not {row for split in (splits["val"], splits["test"]) for row in split.row_hashes} & set(twins.row_hashes)
    with pytest.raises(ValueError, match="10 of them without an equal"):
        carve(both, {"val": 11}, seed=0)


def test_rows_of_another_split_are_not_drawn():
    whole = pool(20)
    elsewhere = whole.take(12)
    splits = carve(whole, {"val": 8}, seed=0, apart_from=[elsewhere])
    assert sorted(splits["val"].x[:, 0].tolist()) == list(range(12, 20))


def test_something_remains():
    with pytest.raises(ValueError, match="keep some"):
        carve(pool(6), {"val": 3, "test": 3}, seed=0)


def test_targets_are_drawn_without_classes():
    x = torch.arange(30.0).unsqueeze(1)
    assert len(carve(Split("all", x, x**2), {"val": 7}, seed=0)["val"]) == 7
