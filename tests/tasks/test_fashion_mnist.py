"""The full set: checked files, carved splits, and the download's failures."""

import gzip
import struct

import pytest

from levelhead.tasks.fashion_mnist import PACKED, UNPACKED, fashion_mnist, read_files


def test_splits_of_the_official_files(fashion_mnist_dir):
    task = fashion_mnist(data_dir=fashion_mnist_dir)
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [52500, 5000, 2500, 10000]
    assert task.val.y.bincount().tolist() == [500] * 10
    assert task.calibration.y.bincount().tolist() == [250] * 10
    assert task.overlaps == {}
    assert "mnist" not in task.ood  # files of the same names, in a folder of another


def test_files_with_other_content_are_refused(tmp_path):
    for file in PACKED:
        (tmp_path / file).write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 3) + bytes(3)))
    with pytest.raises(ValueError, match=r"wrong checksum.*fetch"):
        read_files(tmp_path)


def test_both_lists_of_checksums_name_the_same_files():
    assert list(PACKED) == list(UNPACKED)
