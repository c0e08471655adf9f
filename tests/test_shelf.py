"""Portions survive a kill, and count only where they are of the same predictor, data and question."""

import json

import pytest
import torch
from echo import Echo, EchoGaussian, logits_task, moments_task

from levelhead.backbones.resnet import ResNet
from levelhead.beliefs import TargetBeliefs, of_batch
from levelhead.evaluation import Passes, records, rescore
from levelhead.evaluations.shift import Shift
from levelhead.predictor import Point
from levelhead.shelf import FOLDER, Shelf, alike, progress
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.rotation import Rotation
from levelhead.tasks.stripes import stripes

SUITE = Shift(shifts=(GaussianNoise(), Rotation()), severities=(1, 3))  # four sets
TASK = stripes(n=2000)  # a thousand test rows: four blocks


class Mortal(Point):
    """A predictor whose process dies at its n-th forward pass."""

    def __init__(self, network, lives):
        super().__init__(network)
        self.lives = lives
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes > self.lives:
            raise KeyboardInterrupt
        return super().forward(x)


def network(seed=0):
    torch.manual_seed(seed)
    return ResNet(depth=8, width=4)(TASK.signature)


def measured(folder, lives=10_000, seed=0, suite=SUITE, task=TASK, **how):
    predictor = Mortal(network(seed), lives)
    return records(predictor, task, (suite,), keep=folder, batch_size=250, **how), predictor.passes


def killed(folder, lives, **how):
    with pytest.raises(KeyboardInterrupt):
        measured(folder, lives, **how)


def test_a_killed_suite_goes_on_with_the_next_block(tmp_path):
    whole, passes = measured(tmp_path / "whole")
    assert passes == 4 * 4
    killed(tmp_path / "killed", lives=9)  # in the third block
    assert progress(tmp_path / "killed") == ("shift", 2, 4)
    resumed, passes = measured(tmp_path / "killed")
    assert passes == 1 + 2 * 4  # one to see that it is the same predictor
    assert resumed == whole
    assert sorted(rescore(tmp_path / "killed", (SUITE,)), key=str) == sorted(whole, key=str)
    assert not (tmp_path / "killed" / FOLDER).exists()


def test_a_kill_in_a_later_suite_costs_nothing_of_this_one(tmp_path):
    class Fatal:
        def __call__(self, predictor, task, predict):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records(Mortal(network(), 100), TASK, (SUITE, Fatal()), keep=tmp_path, batch_size=250)
    assert measured(tmp_path)[1] == 1


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"task": stripes(n=2000, seed=1)},
        {"suite": Shift(shifts=(GaussianNoise(), Rotation()), severities=(1, 3), limit=999)},
        {"suite": Shift(shifts=(GaussianNoise(small=(0.5,) * 5), Rotation()), severities=(1, 3))},
    ],
    ids=["predictor", "data", "limit", "constants"],
)
def test_portions_of_something_else_are_thrown_away(tmp_path, other):
    killed(tmp_path, lives=9)
    found, _ = measured(tmp_path, **other)
    assert found == measured(None, **other)[0]


def test_a_watcher_is_told_and_nothing_is_left_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = []
    measured(None, watch=lambda *state: told.append(state))
    assert told == [("shift", done, 4) for done in (1, 2, 3, 4)]
    killed(None, lives=9)
    assert list(tmp_path.iterdir()) == []


def test_memory_holds_one_portion(tmp_path, monkeypatch):
    """Every block is put away before the next is read, and sets are read one at a time."""
    events = []
    monkeypatch.setattr(Shelf, "put", traced(events, "put", Shelf.put))
    monkeypatch.setattr(Shelf, "joined", traced(events, "read", Shelf.joined))
    monkeypatch.setattr(Shift, "score", traced(events, "score", Shift.score))
    measured(tmp_path)
    assert events == ["put"] * 4 + ["read", "score"] * 4


def traced(events, name, function):
    def call(*args, **kwargs):
        events.append(name)
        return function(*args, **kwargs)

    return call


def test_beliefs_about_targets_come_back_whole(tmp_path):
    task = moments_task(members=3)
    batch = next(task.test.ordered(60))
    beliefs = of_batch(EchoGaussian()(batch.x), batch)
    shelf = Shelf(tmp_path, "shift", {"n": 1}, 2)
    shelf.put(0, {"a/b-1": beliefs, "other": beliefs})
    shelf.put(1, {"a/b-1": beliefs})
    again = shelf.joined("a/b-1", [0, 1])
    assert isinstance(again, TargetBeliefs)
    assert again.means.shape == (3, 120, 1)
    assert alike(shelf.get(0, "other"), beliefs)
    assert not alike(shelf.get(0, "other"), again)


def test_a_damaged_folder_is_begun_anew(tmp_path):
    shelf = Shelf(tmp_path, "shift", {"n": 1}, 2)
    shelf.put(0, {"a": next(iter(Passes(Echo(), logits_task()).portions("x", 0, [_Rows()])))[1]})
    assert 0 in Shelf(tmp_path, "shift", {"n": 1}, 2)
    (shelf.place / "about.json").write_text("{")
    assert progress(tmp_path) is None
    assert 0 not in Shelf(tmp_path, "shift", {"n": 1}, 2)
    assert json.loads((shelf.place / "about.json").read_text()) == {"about": {"n": 1}, "portions": 2}


class _Rows:
    keys = ("a",)

    def batches(self, size, device):
        for batch in logits_task().test.ordered(size):
            yield "a", batch
