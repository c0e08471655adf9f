"""KNN against all distances, computed one by one."""

import pytest
import torch
from detectors.plain import float64, plain, plain_task, rows
from torch.testing import assert_close

from levelhead.detectors import knn
from levelhead.detectors.knn import KNN
from levelhead.tasks.task import Task

TASK = plain_task()
X = float64(rows(25, 5)[0])
UNIT = TASK.train.x.double() / TASK.train.x.double().norm(dim=-1, keepdim=True)


def brute(x: torch.Tensor, k: int) -> torch.Tensor:
    unit = x / x.norm(dim=-1, keepdim=True)
    distances = torch.stack([(row - UNIT).square().sum(-1).sqrt() for row in unit])
    return distances.sort(dim=-1).values[:, k - 1]


@pytest.mark.parametrize("k", [1, 3, 50, 120])
def test_it_is_the_kth_distance(k):
    assert_close(KNN(k=k).fit(plain(), TASK)(X), brute(X, k), atol=2e-7, rtol=1e-5)


def test_a_training_row_is_its_own_nearest():
    score = KNN(k=1).fit(plain(), TASK)(float64(TASK.train.x))
    assert score.max() < 1e-6


def test_the_length_of_the_features_does_not_matter():
    scorer = KNN(k=5).fit(plain(), TASK)
    assert_close(scorer(7 * X), scorer(X), atol=1e-6, rtol=1e-6)


def test_the_order_of_the_rows_does_not_matter():
    order = torch.randperm(len(TASK.train), generator=torch.Generator().manual_seed(0))
    shuffled = Task(
        "shuffled", TASK.train.take(order), TASK.val, TASK.calibration, TASK.test, likelihood=TASK.likelihood
    )
    assert_close(KNN(k=5).fit(plain(), shuffled)(X), KNN(k=5).fit(plain(), TASK)(X))


def test_chunks_change_nothing(monkeypatch):
    scorer = KNN(k=5).fit(plain(), TASK)
    whole = scorer(X)
    monkeypatch.setattr(knn, "CHUNK", 3 * len(TASK.train))
    assert_close(scorer(X), whole)


def test_a_bank_is_a_sample_of_the_rows_that_the_seed_names():
    banks = [KNN(bank=20, seed=seed).fit(plain(), TASK).learned[0]["bank"] for seed in (0, 0, 1)]
    assert banks[0].shape == (20, 5)
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])
    assert (torch.cdist(banks[0].double(), UNIT).amin(-1) < 1e-6).all()


def test_with_fewer_rows_than_k_the_farthest_counts():
    assert_close(KNN(k=500).fit(plain(), TASK)(X), brute(X, len(UNIT)), atol=2e-7, rtol=1e-5)


def test_sites_are_rows():
    scorer = KNN(k=5).fit(plain(), TASK)
    z = X.reshape(5, 5, 5)
    assert_close(knn.distance(z, scorer.learned[0]["bank"], k=5), scorer(X).reshape(5, 5))


@pytest.mark.parametrize("name", ["k", "bank"])
def test_settings_that_mean_nothing_are_refused(name):
    with pytest.raises(ValueError, match=name):
        KNN(**{name: 0})


def test_rows_of_no_length_are_far_from_all():
    assert_close(
        KNN(k=1).fit(plain(), TASK)(torch.zeros(1, 5, dtype=torch.float64)), torch.ones(1, dtype=torch.float64)
    )
