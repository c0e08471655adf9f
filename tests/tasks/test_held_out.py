"""Classes held out: in no split but the near set, and the rest renumbered."""

import pytest
import torch

from levelhead.likelihood import Categorical
from levelhead.tasks.held_out import NEAR, without_classes
from levelhead.tasks.load import load_task
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

SPLITS = ("train", "val", "calibration", "test")


def marked(*, void: int | None = None, n: int = 20, classes: tuple[str, ...] = ("a", "b", "c", "d")) -> Task:
    """Rows (old label, serial number) of four classes; the last row of each split is void where there is void."""

    def split(name: str, start: int) -> Split:
        y = torch.arange(n) % 4
        x = torch.stack([y.float(), torch.arange(start, start + n).float()], dim=1)
        if void is not None:
            y[-1] = void
        return Split(name, x, y)

    splits = {name: split(name, 100 * place) for place, name in enumerate(SPLITS)}
    extra = Split("unlabelled", torch.tensor([[1.0, 900], [2, 901], [9, 902]]), torch.tensor([1, 2, -1]))
    shifts = {"moved-1": split("moved-1", 700)}
    return Task("marked", **splits, likelihood=Categorical(4, void), unlabelled=extra, shifts=shifts, classes=classes)


def test_the_rest_is_renumbered_in_order():
    task = without_classes(marked(), (1,))
    for split in (*(getattr(task, name) for name in SPLITS), task.shifts["moved-1"]):
        assert set(split.x[:, 0].tolist()) == {0, 2, 3}
        assert torch.equal(split.y, torch.tensor([0, -1, 1, 2])[split.x[:, 0].long()])
    assert task.likelihood == Categorical(3)
    assert task.classes == ("a", "c", "d")
    assert task.name == "marked-without-1"


def test_test_rows_of_the_others_are_the_near_set():
    task = without_classes(marked(), (3, 1))
    near = task.ood[NEAR]
    assert set(near.x[:, 0].tolist()) == {1, 3}
    assert len(near) + len(task.test) == len(marked().test)
    assert (near.y == -1).all()


def test_unlabelled_rows_that_are_known_to_be_of_them_go():
    assert without_classes(marked(), (1,)).unlabelled.x[:, 1].tolist() == [901, 902]


def test_void_stays_void():
    task = without_classes(marked(void=255), (0,))
    assert task.train.y[-1] == 255
    assert task.likelihood == Categorical(3, 255)
    assert 255 not in task.ood[NEAR].x[:, 0]


def test_any_named_task_has_the_option():
    whole, task = load_task("fashion-mini"), load_task("fashion-mini", holdout_classes=(8, 9))
    assert list(task.ood) == [NEAR, *whole.ood]
    assert len(task.ood[NEAR]) == int((whole.test.y >= 8).sum())
    assert task.digest != whole.digest
    assert task.args["holdout_classes"] == [8, 9]


@pytest.mark.parametrize("classes", [(4,), (-1,), (0, 1, 2)])
def test_labels_that_are_none_are_refused(classes):
    with pytest.raises(ValueError, match="holdout_classes"):
        without_classes(marked(), classes)


def test_targets_have_no_classes():
    with pytest.raises(ValueError, match="no classes"):
        load_task("cubic", holdout_classes=(1,))
