"""ViM against NumPy, and what must hold of its residual."""

import numpy as np
import pytest
import torch
from detectors.plain import CLASSES, WIDTH, float64, plain, plain_task, rows
from torch import nn
from torch.testing import assert_close

from levelhead.detectors._fit import Scorer
from levelhead.detectors.energy import Energy
from levelhead.detectors.vim import ViM, default_dim
from levelhead.predictor import Ensemble
from levelhead.types import CannotCompose

TASK = plain_task()
X = float64(rows(25, 5)[0])


def by_hand(point, dim):
    weight, bias = (t.detach().numpy() for t in (point.network.head.weight, point.network.head.bias))
    origin = -np.linalg.pinv(weight) @ bias
    z = TASK.train.x.double().numpy()
    values, vectors = np.linalg.eig((z - origin).T @ (z - origin) / len(z))
    basis = vectors[:, np.argsort(-values)[dim:]]
    best = (z @ weight.T + bias).max(-1).mean()
    alpha = best / np.linalg.norm((z - origin) @ basis, axis=-1).mean()
    logits = X.numpy() @ weight.T + bias
    return alpha * np.linalg.norm((X.numpy() - origin) @ basis, axis=-1) - np.log(np.exp(logits).sum(-1))


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_it_is_the_virtual_logit_less_the_log_partition(dim):
    point = plain()
    assert_close(ViM(dim=dim).fit(point, TASK)(X), torch.from_numpy(by_hand(point, dim)))


def test_the_residual_lies_beyond_the_principal_subspace():
    learned = ViM(dim=2).fit(plain(), TASK).learned[0]
    basis, origin = learned["basis"], learned["origin"]
    assert_close(basis.mT @ basis, torch.eye(WIDTH - 2, dtype=torch.float64))
    centred = TASK.train.x.double() - origin
    leading = torch.linalg.eigh(centred.mT @ centred).eigenvectors[:, -2:]
    assert_close(basis.mT @ leading, torch.zeros(WIDTH - 2, 2, dtype=torch.float64), atol=1e-10, rtol=0)


def test_the_origin_has_no_logits():
    point = plain(classes=3)
    origin = ViM().fit(point, TASK).learned[0]["origin"]
    assert_close(point.network.head(origin), torch.zeros(CLASSES, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("dim", [WIDTH, 512])
def test_with_nothing_left_it_is_the_energy(dim):
    point = plain()
    assert_close(ViM(dim=dim).fit(point, TASK)(X), Scorer(point, Energy())(X))


def test_rows_off_the_training_plane_stand_out():
    point = plain()
    scorer = ViM(dim=2).fit(point, TASK)
    learned = scorer.learned[0]
    null = learned["basis"] @ torch.ones(WIDTH - 2, dtype=torch.float64)
    weight = point.network.head.weight.detach()
    inside = null - torch.linalg.pinv(weight) @ weight @ null  # moves the residual and no logit
    assert (scorer(X + 50 * inside) > scorer(X)).all()


def test_the_papers_sizes():
    assert [default_dim(width) for width in (2048, 768, 512, 64)] == [1000, 512, 256, 32]


def test_any_affine_head_will_do_and_others_are_refused():
    two = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    collapsed = nn.Linear(5, 3)
    point, flat = plain(head=two), plain(head=collapsed)
    collapsed.weight.data = (two[1].weight @ two[0].weight).detach()
    collapsed.bias.data = two[1](two[0].bias).detach()
    assert_close(ViM().fit(point, TASK)(X), ViM().fit(flat, TASK)(X))
    with pytest.raises(CannotCompose, match="affine"):
        ViM().fit(plain(head=nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))), TASK)


def test_members_are_averaged():
    members = [plain(seed=seed) for seed in range(2)]
    expected = (ViM().fit(members[0], TASK)(X) + ViM().fit(members[1], TASK)(X)) / 2
    assert_close(ViM().fit(Ensemble(members), TASK)(X), expected, rtol=1e-6, atol=1e-6)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="dim"):
        ViM(dim=0)
