"""Pictures in folders: the folder is the class."""

import numpy as np
import pytest
from PIL import Image

from levelhead.tasks.augment import Augment
from levelhead.tasks.folder import folder


def fill(root, seed=0, n=12, size=(6, 5), classes=("cat", "dog")):
    rng = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            array = rng.integers(0, 100, (size[1], size[0], 3), dtype=np.uint8) + np.uint8(100 * label)
            Image.fromarray(array).save(root / name / f"{i}.png")
    return root


def test_splits_are_drawn_where_none_are_given(tmp_path):
    task = folder(fill(tmp_path / "pets"), augment=Augment(crop=1))
    assert task.name == "folder:pets"
    assert task.classes == ("cat", "dog")
    assert task.signature.input_shape == (3, 5, 6)
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [15, 2, 2, 5]
    for split in (task.train, task.val, task.calibration, task.test):
        assert ((split.x.float().mean((1, 2, 3)) > 100).long() == split.y).all()


def test_folders_named_as_splits_are_the_splits(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", seed=1, n=3)
    task = folder(tmp_path)
    assert len(task.test) == 6
    assert len(task.train) + len(task.val) + len(task.calibration) == 24


def test_size_and_grey(tmp_path):
    assert folder(fill(tmp_path), size=8, grey=True).signature.input_shape == (1, 8, 8)


def test_refuses_one_class_only_or_a_new_one_in_test(tmp_path):
    with pytest.raises(ValueError, match="at least two; got none"):
        folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"got \['cat'\]"):
        folder(fill(tmp_path / "one", classes=("cat",)))
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "test", seed=1, classes=("cat", "fish"))
    with pytest.raises(ValueError, match="fish is no class of train, which has cat, dog"):
        folder(tmp_path / "pets")
