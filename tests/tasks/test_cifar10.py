"""CIFAR-10 from Parquet: decoded once, then read from the cache."""

import io
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from levelhead.tasks import cifar10 as module
from levelhead.tasks.augment import Augment
from levelhead.tasks.cifar10 import cached, cifar10, read_parquet
from levelhead.types import MissingExtra


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def write(path, n, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    table = {"img": [{"bytes": png(x), "path": "x.png"} for x in pixels], "label": np.arange(n) % 10}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "cifar10"
    folder.mkdir()
    return tmp_path, write(folder / "train.parquet", 60, 0), write(folder / "test.parquet", 20, 1)


def test_reads_the_hugging_face_layout(small):
    data_dir, train, test = small
    task = cifar10(val=10, calibration=10, data_dir=data_dir, cache_dir=data_dir / "cache")
    assert torch.equal(task.test.x, test)
    assert task.test.y.tolist() == [*range(10)] * 2
    assert [len(s) for s in (task.train, task.val, task.calibration)] == [40, 10, 10]
    assert {x.numpy().tobytes() for x in train} >= {x.numpy().tobytes() for x in task.val.x}
    assert task.val.y.bincount().tolist() == [1] * 10
    assert task.augment == Augment(flip=True, crop=4)


def test_far_sets_come_where_asked(small):
    data_dir, _, _ = small
    sizes = {"val": 10, "calibration": 10, "data_dir": data_dir, "cache_dir": data_dir / "cache"}
    assert cifar10(**sizes).ood == {}
    far = cifar10(**sizes, ood=True).ood
    assert {name: tuple(split.x.shape) for name, split in far.items()} == {
        "digits": (1000, 3, 32, 32),
        "clothes": (1000, 3, 32, 32),
    }
    assert all((split.x[:, 0] == split.x[:, 2]).all() for split in far.values())
    assert cifar10(**sizes).digest == cifar10(**sizes, ood=False).digest


def test_near_and_far_sets_in_files_come_with_them(small):
    data_dir, _, _ = small
    for folder, labels in (("cifar100", "fine_label"), ("svhn", "label")):
        (data_dir / folder).mkdir()
        write(data_dir / folder / "test.parquet", 12, 3)
        table = pyarrow.parquet.read_table(data_dir / folder / "test.parquet")
        pyarrow.parquet.write_table(table.rename_columns(["img", labels]), data_dir / folder / "test.parquet")
    sizes = {"val": 10, "calibration": 10, "data_dir": data_dir, "cache_dir": data_dir / "cache"}
    found = cifar10(**sizes, ood=True).ood
    assert list(found) == ["near-cifar100", "svhn", "digits", "clothes"]
    assert found["near-cifar100"].x.shape == (12, 3, 32, 32)
    assert (found["svhn"].y == -1).all()


def test_the_cache_is_read_instead_of_the_pictures(small, monkeypatch):
    data_dir, _, test = small
    source = data_dir / "cifar10" / "test.parquet"
    first = cached(source, data_dir / "cache")
    monkeypatch.setattr(module, "read_parquet", None)
    again = cached(source, data_dir / "cache")
    assert torch.equal(first[0], test)
    assert torch.equal(again[0], test)
    assert torch.equal(again[1], first[1])
    assert [file.suffix for file in (data_dir / "cache").iterdir()] == [".npz"]


def test_other_content_is_another_entry(small):
    data_dir = small[0]
    source = data_dir / "cifar10" / "test.parquet"
    cached(source, data_dir / "cache")
    changed = write(source, 20, 7)
    assert torch.equal(cached(source, data_dir / "cache")[0], changed)


def test_a_damaged_cache_is_an_error_and_no_data(small):
    data_dir = small[0]
    source = data_dir / "cifar10" / "test.parquet"
    cached(source, data_dir / "cache")
    (kept,) = (data_dir / "cache").iterdir()
    content = bytearray(kept.read_bytes())
    content[5000] ^= 255
    kept.write_bytes(content)
    with pytest.raises(Exception, match="CRC"):
        cached(source, data_dir / "cache")


def test_other_columns_are_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"picture": [1], "label": [2]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="wants columns img and label, got picture, label"):
        read_parquet(tmp_path / "x.parquet")


@pytest.mark.parametrize("module", ["pyarrow.parquet", "PIL.Image"])
def test_a_missing_extra_is_named(small, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module} is needed.*levelhead\[study\]"):
        cifar10(data_dir=small[0], cache_dir=small[0] / "cache")


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train.parquet, test.parquet.*to_parquet"):
        cifar10(data_dir=tmp_path)


def test_the_published_test_file(data_dir, tmp_path):
    x, y = cached(data_dir / "cifar10" / "test.parquet", tmp_path)
    assert x.shape == (10000, 3, 32, 32)
    assert y.bincount().tolist() == [1000] * 10
