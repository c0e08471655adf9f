"""Mahalanobis distances and densities against NumPy, SciPy and their distributions."""

import numpy as np
import pytest
import torch
from detectors.plain import CLASSES, WIDTH, float64, plain, plain_task, rows
from scipy.special import logsumexp
from scipy.stats import chi2, kstest, multivariate_normal
from torch.testing import assert_close

from levelhead.detectors.feature_density import FeatureDensity
from levelhead.detectors.mahalanobis import Mahalanobis
from levelhead.detectors.relative_mahalanobis import RelativeMahalanobis
from levelhead.predictor import Ensemble
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

TASK = plain_task()
X = float64(rows(25, 5)[0])
Z, Y = TASK.train.x.double().numpy(), TASK.train.y.numpy()
MEANS = np.stack([Z[k == Y].mean(0) for k in range(CLASSES)])
WITHIN = (Z - MEANS[Y]).T @ (Z - MEANS[Y]) / len(Z)
EXACT = {"shrinkage": 0.0}


def squared(x, mean, covariance):
    return np.einsum("bi,ij,bj->b", x - mean, np.linalg.inv(covariance), x - mean)


def test_the_distance_is_that_to_the_nearest_class():
    expected = np.min([squared(X.numpy(), mean, WITHIN) for mean in MEANS], axis=0)
    assert_close(Mahalanobis(**EXACT).fit(plain(), TASK)(X), torch.from_numpy(expected))


def test_shrinkage_goes_to_the_sphere():
    shrunk = 0.7 * WITHIN + 0.3 * np.trace(WITHIN) / WIDTH * np.eye(WIDTH)
    expected = np.min([squared(X.numpy(), mean, shrunk) for mean in MEANS], axis=0)
    assert_close(Mahalanobis(shrinkage=0.3).fit(plain(), TASK)(X), torch.from_numpy(expected))
    sphere = np.min([((X.numpy() - mean) ** 2).sum(-1) for mean in MEANS], axis=0) / (np.trace(WITHIN) / WIDTH)
    assert_close(Mahalanobis(shrinkage=1.0).fit(plain(), TASK)(X), torch.from_numpy(sphere))


def test_relative_takes_off_the_distance_from_all_rows():
    background = squared(X.numpy(), Z.mean(0), np.cov(Z.T, bias=True))
    expected = np.min([squared(X.numpy(), mean, WITHIN) for mean in MEANS], axis=0) - background
    assert_close(RelativeMahalanobis(**EXACT).fit(plain(), TASK)(X), torch.from_numpy(expected))


def test_one_gaussian_class_gives_chi_square():
    task = one_class(4000)
    score = Mahalanobis(**EXACT).fit(plain(classes=1), task)(float64(rows(3000, 11, classes=1)[0]))
    assert kstest(score.numpy(), chi2(WIDTH).cdf).pvalue > 1e-3


def test_relative_to_a_single_class_is_zero():
    # two labels, and rows of one alone: the nearest class is all rows
    score = RelativeMahalanobis(**EXACT).fit(plain(classes=1), one_class(100))(X)
    assert_close(score, torch.zeros_like(score), atol=1e-9, rtol=0)


def one_class(n: int) -> Task:
    splits = [
        Split(name, *rows(n, seed, classes=1)) for seed, name in enumerate(("train", "val", "calibration", "test"))
    ]
    return Task("one", *splits, likelihood=plain(classes=1).network.likelihood)


def densities(x, covariances, priors):
    logs = [
        np.log(p) + multivariate_normal(mean, cov).logpdf(x)
        for p, mean, cov in zip(priors, MEANS, covariances, strict=True)
    ]
    return -logsumexp(logs, axis=0)


def test_densities_are_scipys():
    shares = np.bincount(Y) / len(Y)
    own = [np.cov(Z[k == Y].T) for k in range(CLASSES)]
    cases = {
        FeatureDensity(**EXACT): densities(X.numpy(), own, shares),
        FeatureDensity(priors=False, **EXACT): densities(X.numpy(), own, np.full(CLASSES, 1 / CLASSES)),
        FeatureDensity(covariance="tied", **EXACT): densities(X.numpy(), [WITHIN] * CLASSES, shares),
        FeatureDensity(covariance="diagonal", **EXACT): densities(
            X.numpy(), [np.diag(np.diag(cov)) for cov in own], shares
        ),
        FeatureDensity(per_class=False, **EXACT): -multivariate_normal(Z.mean(0), np.cov(Z.T)).logpdf(X.numpy()),
    }
    for spec, expected in cases.items():
        assert_close(
            spec.fit(plain(), TASK)(X), torch.from_numpy(expected), msg=lambda text, spec=spec: f"{spec}: {text}"
        )


def uneven() -> Task:
    kept = torch.arange(90)
    y = torch.cat([torch.zeros(60, dtype=torch.long), torch.ones(30, dtype=torch.long)])
    train = Split("train", TASK.train.x[kept], y)
    return Task("uneven", train, TASK.val, TASK.calibration, TASK.test, likelihood=TASK.likelihood)


def test_classes_without_rows_are_no_candidates():
    task = uneven()
    z, y = task.train.x.double().numpy(), task.train.y.numpy()
    found = FeatureDensity(**EXACT).fit(plain(), task)(X)
    logs = [
        np.log(np.mean(y == k)) + multivariate_normal(z[y == k].mean(0), np.cov(z[y == k].T)).logpdf(X) for k in (0, 1)
    ]
    assert_close(found, torch.from_numpy(-logsumexp(logs, axis=0)))
    assert Mahalanobis().fit(plain(), task).learned[0]["centres"].shape == (2, WIDTH)


def mapped(task: Task, matrix: torch.Tensor) -> Task:
    splits = {n: Split(n, (getattr(task, n).x.double() @ matrix + 1).float(), getattr(task, n).y) for n in KINDS}
    return Task("mapped", **splits, likelihood=task.likelihood)


KINDS = ("train", "val", "calibration", "test")
MATRIX = torch.eye(WIDTH, dtype=torch.float64) + 0.3 * torch.randn(
    WIDTH, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64
)


@pytest.mark.parametrize("spec", [Mahalanobis(**EXACT), RelativeMahalanobis(**EXACT)])
def test_distances_do_not_depend_on_the_coordinates(spec):
    moved = spec.fit(plain(), mapped(TASK, MATRIX))(X @ MATRIX + 1)
    assert_close(moved, spec.fit(plain(), TASK)(X), rtol=1e-4, atol=1e-4)  # the mapped rows are float32


def test_a_density_shifts_by_the_log_determinant_unless_it_is_diagonal():
    def shift(spec):
        return spec.fit(plain(), mapped(TASK, MATRIX))(X @ MATRIX + 1) - spec.fit(plain(), TASK)(X)

    volume = torch.linalg.slogdet(MATRIX).logabsdet
    assert_close(shift(FeatureDensity(**EXACT)), volume.expand(len(X)), rtol=1e-3, atol=1e-3)
    assert shift(FeatureDensity(covariance="diagonal", **EXACT)).std() > 0.1


@pytest.mark.parametrize("spec", [Mahalanobis(), RelativeMahalanobis(), FeatureDensity(), FeatureDensity("tied")])
def test_members_have_statistics_of_their_own(spec):
    members = [plain(seed=0), plain(seed=1)]
    members[1].network.features[0] = torch.nn.Sigmoid()
    weights = torch.tensor([0.25, 0.75])
    scorer = spec.fit(Ensemble(members, weights.log()), TASK)
    expected = sum(w * spec.fit(member, TASK)(X) for w, member in zip(weights.tolist(), members, strict=True))
    assert_close(scorer(X), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("spec", [Mahalanobis(), RelativeMahalanobis(), FeatureDensity()])
def test_features_that_never_vary_give_numbers(spec):
    splits = {
        n: Split(n, torch.cat([getattr(TASK, n).x, torch.zeros(len(getattr(TASK, n)), 2)], 1), getattr(TASK, n).y)
        for n in KINDS
    }
    task = Task("dead", **splits, likelihood=TASK.likelihood)
    score = spec.fit(plain(width=WIDTH + 2), task)(float64(task.test.x))
    assert score.isfinite().all()
    with pytest.raises(ValueError, match="shrinkage"):
        type(spec)(shrinkage=0.0).fit(plain(width=WIDTH + 2), task)


def test_too_many_matrices_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("levelhead.detectors.feature_density.MOST_BYTES", 500)
    with pytest.raises(CannotCompose, match="tied"):
        FeatureDensity().fit(plain(), TASK)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: Mahalanobis(shrinkage=-1.0), "shrinkage"),
        (lambda: RelativeMahalanobis(shrinkage=2.0), "shrinkage"),
        (lambda: FeatureDensity(shrinkage=2.0), "shrinkage"),
        (lambda: FeatureDensity(covariance="round"), "round"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
