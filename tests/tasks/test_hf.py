"""A data set in the Hugging Face layout on disk, read as one on the hub is."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from levelhead.tasks.hf import hf
from levelhead.types import MissingExtra

datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return {"bytes": stream.getvalue(), "path": None}


def make(n, seed, **columns):
    rng = np.random.default_rng(seed)
    pictures = [png(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(n)]
    labels = datasets.ClassLabel(names=["cat", "dog"])
    features = {"picture": datasets.Image(), "what": labels} | {key: datasets.Image() for key in columns}
    rows = {"picture": pictures, "what": [i % 2 for i in range(n)]} | dict.fromkeys(columns, pictures)
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pets").mkdir()
    return tmp_path / "pets"


def test_columns_and_splits_are_found(place):
    make(20, 0).to_parquet(place / "train.parquet")
    make(8, 1).to_parquet(place / "test.parquet")
    task = hf(str(place))
    assert task.name == "hf:pets"
    assert task.classes == ("cat", "dog")
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [16, 2, 2, 8]
    assert task.signature.input_shape == (3, 6, 6)
    assert task.test.y.tolist() == [0, 1] * 4
    assert hf(str(place), size=4, grey=True).signature.input_shape == (1, 4, 4)


def test_a_missing_extra_is_named(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"levelhead\[data\]"):
        hf(str(place))


def test_several_picture_columns_want_a_choice(place):
    make(20, 0, other=True).to_parquet(place / "train.parquet")
    with pytest.raises(ValueError, match=r"2 columns that could be the image .* say image=NAME"):
        hf(str(place))
    assert len(hf(str(place), image="other").test) == 4
    with pytest.raises(ValueError, match="has the splits train; choose"):
        hf(str(place), image="other", test="test")
