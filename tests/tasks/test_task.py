"""Rows of different splits are different rows, and test rows are sealed while something is fitted."""

import dataclasses
import json
import pickle

import pytest
import torch

from levelhead.likelihood import Categorical, Gaussian
from levelhead.tasks.augment import Augment
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task, TestDataLeak


def parts(sizes=(12, 4, 4, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    names = ("train", "val", "calibration", "test")
    return {
        name: Split(name, torch.randn(n, 3, generator=generator), torch.arange(n) % 3)
        for name, n in zip(names, sizes, strict=True)
    }


def task(**changes):
    return Task(**{"name": "tiny", "likelihood": Categorical(3), **parts(), **changes})


def joined(split, other, rows):
    """`split` with rows of another one at its end."""
    return Split(split.name, torch.cat([split.x, other.x[rows]]), torch.cat([split.y, other.y[rows]]))


@pytest.mark.parametrize(
    "first, second",
    [
        ("train", "val"),
        ("train", "calibration"),
        ("train", "test"),
        ("val", "calibration"),
        ("val", "test"),
        ("calibration", "test"),
    ],
)
def test_shared_rows_are_a_leak(first, second):
    splits = parts()
    splits[second] = joined(splits[second], splits[first], [0, 2])
    with pytest.raises(TestDataLeak, match=f"2 rows of {second} are in {first} too.*Remove them from {first}"):
        task(**splits)
    known = task(**splits, known_overlaps=True)
    assert known.overlaps == known.receipt()["overlaps"] == {f"{first}/{second}": 2}


def test_equal_rows_within_a_split_are_no_leak():
    splits = parts()
    splits["train"] = joined(splits["train"], splits["train"], [0])
    assert task(**splits).overlaps == {}


@pytest.mark.parametrize("name, advice", [("test", "val"), ("shifts", "val"), ("ood", "calibration")])
def test_a_sealed_task_does_not_show_what_evaluations_read(name, advice):
    whole = task(ood={"far": parts(seed=1)["test"]}, shifts={"near": parts(seed=2)["test"]})
    sealed = whole.sealed()
    with pytest.raises(TestDataLeak, match=rf"task\.{name} of 'tiny'.*{advice}"):
        getattr(sealed, name)
    assert name not in vars(sealed)
    with pytest.raises(TestDataLeak):
        getattr(pickle.loads(pickle.dumps(sealed.to("cpu").dry(3).sealed())), name)


def test_a_sealed_task_shows_the_rest():
    whole = task(augment=None, classes=("a", "b", "c"))
    sealed = whole.sealed()
    assert isinstance(sealed, Task)
    assert sealed.train is whole.train
    assert sealed.val is whole.val
    assert sealed.calibration is whole.calibration
    assert sealed.classes == whole.classes
    assert sealed.signature == whole.signature
    assert sealed.receipt() == whole.receipt()
    assert sealed.digest == whole.digest
    assert "test 6" in repr(sealed)


def test_a_leak_is_a_value_error_too():
    assert issubclass(TestDataLeak, ValueError)


def test_the_signature_is_measured_on_train():
    made = task()
    assert made.signature.input_shape == (3,)
    assert made.signature.num_outputs == 3
    assert torch.allclose(torch.tensor(made.signature.mean), made.train.x.mean(0), atol=1e-6)
    assert torch.allclose(torch.tensor(made.signature.std), made.train.x.std(0, correction=0), atol=1e-6)


def test_dry_is_tiny_with_the_same_signature():
    whole = stripes()
    tiny = whole.dry(8)
    assert [len(split) for split in (tiny.train, tiny.val, tiny.calibration, tiny.test, tiny.ood["checkers"])] == [
        8
    ] * 5
    assert set(tiny.train.row_hashes) < set(whole.train.row_hashes)
    assert len(tiny.train.y.unique()) == 3
    assert tiny.signature == whole.signature
    assert tiny.receipt() == whole.receipt()
    assert tiny.num_train == whole.num_train == len(whole.train)
    assert len(task().dry(8).val) == 4


def test_the_receipt_is_plain_json_and_stable():
    made = task(augment=None, args={"seed": 0})
    receipt = made.receipt()
    assert json.loads(json.dumps(receipt)) == receipt
    assert receipt == task(args={"seed": 0}).receipt()
    assert receipt["splits"]["train"] == {"size": 12, "digest": made.train.digest}
    receipt["splits"].clear()
    assert made.receipt()["splits"]


def test_digests_tell_tasks_apart():
    digests = [
        task().digest,
        task(name="other").digest,
        task(args={"seed": 1}).digest,
        task(val=parts(seed=5)["val"]).digest,
        task(ood={"far": parts(seed=1)["test"]}).digest,
        stripes().digest,
    ]
    assert len(set(digests)) == len(digests)
    assert task().digest == digests[0]


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"likelihood": Categorical(2)}, "label 2; wants 0 to 1"),
        ({"classes": ("a", "b")}, "2 names for 3 classes"),
        ({"columns": ("a", "b")}, "2 columns are named, and inputs have shape"),
        ({"augment": Augment()}, "augment=None"),
        ({"ood": {"far": Split("far", torch.zeros(2, 4), torch.zeros(2).long())}}, "inputs of far have shape"),
        ({"test": Split("test", torch.zeros(2, 3), torch.zeros(2, 1))}, "soft labels with 3 classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_refuses_splits_that_do_not_fit(changes, says):
    with pytest.raises(ValueError, match=says):
        task(**changes)


def test_void_labels_and_other_likelihoods_pass():
    splits = parts()
    splits["train"] = Split("train", splits["train"].x, torch.full((12,), 255))
    task(**splits, likelihood=Categorical(3, void=255))
    targets = {name: Split(name, split.x, torch.randn(len(split), 1)) for name, split in parts().items()}
    assert task(**targets, likelihood=Gaussian()).signature.num_outputs == 2


def test_calibration_rows_are_shared_out_in_halves():
    whole = stripes(n=60, size=8)
    first, second = whole.shared_calibration()
    rows = [set(task.calibration.row_hashes) for task in (first, second)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == set(whole.calibration.row_hashes)
    counts = [task.calibration.y.bincount(minlength=3) for task in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 1
    assert first.receipt() == second.receipt() == whole.receipt()
    assert first.signature == whole.signature
    again, _ = whole.sealed().shared_calibration()
    assert again.calibration.digest == first.calibration.digest
    assert whole.shared_calibration(seed=1)[0].calibration.digest != first.calibration.digest
    alone = dataclasses.replace(whole, calibration=whole.calibration.take(1))
    with pytest.raises(ValueError, match="hold out more"):
        alone.shared_calibration()
