"""Small files in the layouts of CIFAR-10-C, MNIST-C and ImageNet-C."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from levelhead.backbones.resnet import ResNet
from levelhead.evaluation import records
from levelhead.evaluations.shift import Shift
from levelhead.measuring import limited
from levelhead.predictor import Point
from levelhead.tasks.corrupted import with_corrupted
from levelhead.tasks.load import load_task
from levelhead.tasks.own import from_tensors
from levelhead.tasks.stored import ArrayPixels, StoredSplit, mapped
from levelhead.tasks.stripes import stripes

RNG = np.random.default_rng(0)
N = 6


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def colour():
    return stripes(channels=3)


def cifar_c(folder, *, names=("fog", "speckle_noise"), side=8, labels=None):
    folder.mkdir()
    arrays = {name: pixels(5 * N, side, side, 3) for name in names}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    labels = np.tile(np.arange(N) % 3, 5) if labels is None else labels
    np.save(folder / "labels.npy", labels.astype(np.uint8))
    return arrays


def as_images(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255


def test_cifar_c_has_the_severities_as_blocks(colour, tmp_path):
    arrays = cifar_c(tmp_path / "CIFAR-10-C")
    task = with_corrupted(colour, tmp_path / "CIFAR-10-C")
    assert list(task.shifts) == [f"{name}-{s}" for name in ("fog", "speckle_noise") for s in range(1, 6)]
    for severity in range(1, 6):
        batches = list(task.shifts[f"fog-{severity}"].ordered(4))
        assert [len(batch.x) for batch in batches] == [4, 2]
        block = arrays["fog"][N * (severity - 1) : N * severity]
        assert torch.equal(torch.cat([batch.x for batch in batches]), as_images(block))
        assert torch.cat([batch.y for batch in batches]).tolist() == [0, 1, 2, 0, 1, 2]
    assert task.receipt()["args"]["corrupted"] == "CIFAR-10-C"
    assert task.receipt()["shifts"]["fog-1"]["size"] == N


def test_mnist_c_has_a_folder_a_corruption_and_one_severity(tmp_path):
    task, arrays = stripes(), {}
    for name in ("fog", "zigzag", "identity"):
        (tmp_path / name).mkdir()
        arrays[name] = pixels(N, 8, 8, 1)
        for part in ("train", "test"):
            np.save(tmp_path / name / f"{part}_images.npy", arrays[name])
            np.save(tmp_path / name / f"{part}_labels.npy", np.arange(N) % 3)
    task = with_corrupted(task, tmp_path)
    assert list(task.shifts) == ["fog", "zigzag"]  # identity is the clean set
    assert torch.equal(next(task.shifts["zigzag"].ordered(N)).x, as_images(arrays["zigzag"]))


@pytest.mark.parametrize("group", ["", "weather"])
def test_imagenet_c_has_folders_of_pictures(tmp_path, group):
    classes = ("n01440764", "n01443537")
    for name, severity in (("fog", 1), ("fog", 4), ("snow", 1)):
        for label in classes:
            folder = tmp_path / group / name / str(severity) / label
            folder.mkdir(parents=True)
            for k in range(2):
                Image.fromarray(pixels(16, 16, 3)).save(folder / f"ILSVRC2012_val_{k}.JPEG")
    x = torch.from_numpy(pixels(40, 3, 16, 16))
    task = with_corrupted(from_tensors(x, torch.arange(40) % 2, classes=classes), tmp_path)
    assert list(task.shifts) == ["fog-1", "fog-4", "snow-1"]
    batch = next(task.shifts["fog-4"].ordered(3))
    file = tmp_path / group / "fog" / "4" / classes[1] / "ILSVRC2012_val_0.JPEG"
    assert torch.equal(batch.x[2], as_images(np.array(Image.open(file))[None])[0])
    assert batch.y.tolist() == [0, 0, 1]
    smaller = from_tensors(x[:, :, :8, :8], torch.arange(40) % 2, classes=classes)
    assert with_corrupted(smaller, tmp_path).shifts["fog-1"].input_shape == (3, 8, 8)
    with pytest.raises(ValueError, match="'n01440764' is no class of 'own', which has cat, dog"):
        with_corrupted(from_tensors(x, torch.arange(40) % 2, classes=("cat", "dog")), tmp_path)


def test_any_task_is_asked_by_name_and_measured(tmp_path):
    cifar_c(tmp_path / "C")
    task = load_task("stripes", channels=3, corrupted=tmp_path / "C")
    predictor = Point(ResNet(depth=8, width=4)(task.signature))
    found = records(predictor, task, (Shift(shifts="weather", severities=(2, 5), limit=4),))
    fog = {(record.data, record.severity) for record in found if record.data == "fog"}
    assert fog == {("fog", 2), ("fog", 5)}
    assert all(record.data != "speckle_noise" for record in found)  # stored, and not asked for
    stored = limited(task.shifts["fog-5"], 4)
    accuracy = predictor(next(stored.ordered(4)).x).probs.argmax(-1).eq(stored.y).float().mean()
    assert {(r.data, r.severity, r.metric): r.value for r in found}["fog", 5, "accuracy"] == pytest.approx(
        float(accuracy)
    )


def test_nothing_is_read_before_it_is_used(colour, tmp_path, monkeypatch):
    cifar_c(tmp_path / "C")
    monkeypatch.setattr(ArrayPixels, "read", None)
    task = with_corrupted(colour, tmp_path / "C").to("cpu").dry()
    assert len(task.shifts["fog-1"]) == N
    assert len(pickle.dumps(task.shifts["fog-1"])) < 2000  # workers get the path, not the pixels


def test_the_digest_is_of_the_content(colour, tmp_path):
    cifar_c(tmp_path / "C", names=("fog",))
    first = with_corrupted(colour, tmp_path / "C")
    digests = [split.digest for split in first.shifts.values()]
    array = np.load(tmp_path / "C" / "fog.npy")
    array[0, 0, 0, 0] ^= 1
    np.save(tmp_path / "C" / "fog.npy", array)
    mapped.cache_clear()
    changed = with_corrupted(colour, tmp_path / "C")
    same = [before == split.digest for before, split in zip(digests, changed.shifts.values(), strict=True)]
    assert same == [False, True, True, True, True]
    assert first.digest != changed.digest


def test_rows_can_be_taken_without_reading(colour, tmp_path):
    arrays = cifar_c(tmp_path / "C", names=("fog",))
    split = with_corrupted(colour, tmp_path / "C").shifts["fog-2"]
    taken = split.take(torch.tensor([5, 0, 2])).take(2)
    batch = next(taken.ordered(10))
    assert torch.equal(batch.x, as_images(arrays["fog"][[N + 5, N]]))
    assert batch.y.tolist() == [2, 0]
    assert taken.digest != split.digest


def test_what_is_no_such_folder_says_what_is_wanted(colour, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels.npy \(CIFAR-10-C\)"):
        with_corrupted(colour, tmp_path)
    cifar_c(tmp_path / "size", side=9)
    with pytest.raises(ValueError, match=r"fog-1 have shape \(3, 9, 9\)"):
        with_corrupted(colour, tmp_path / "size")
    cifar_c(tmp_path / "labels", labels=np.arange(7))
    with pytest.raises(ValueError, match="30 images beside 7 labels"):
        with_corrupted(colour, tmp_path / "labels")
    cifar_c(tmp_path / "floats")
    np.save(tmp_path / "floats" / "fog.npy", np.zeros((30, 8, 8, 3)))
    with pytest.raises(ValueError, match="wants bytes of shape"):
        with_corrupted(colour, tmp_path / "floats")
    cifar_c(tmp_path / "classes", labels=np.full(30, 3))
    with pytest.raises(ValueError, match="label 3; wants 0 to 2"):
        with_corrupted(colour, tmp_path / "classes")


@pytest.mark.parametrize("y", [torch.zeros(5, dtype=torch.long), torch.zeros(6)])
def test_labels_fit_the_images(tmp_path, y):
    np.save(tmp_path / "x.npy", pixels(6, 4, 4))
    with pytest.raises(ValueError, match="StoredSplit 'x'"):
        StoredSplit("x", ArrayPixels(tmp_path / "x.npy", 0, 6), y)
    grey = StoredSplit("x", ArrayPixels(tmp_path / "x.npy", 0, 6), torch.zeros(6, dtype=torch.long))
    assert next(grey.ordered(4)).x.shape == (4, 1, 4, 4)
