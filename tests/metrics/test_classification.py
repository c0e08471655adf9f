import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torch import Tensor
from torch.testing import assert_close

from levelhead.metrics.classification import (
    accuracy,
    brier,
    brier_decomposition,
    brier_skill,
    brier_terms_of_ovadia,
    clipped_share,
    nll,
    num_errors,
    spherical,
)


def beliefs(n: int = 200, num_classes: int = 4, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_probs = (scale * torch.randn(n, num_classes, generator=generator)).log_softmax(-1)
    return log_probs, torch.randint(num_classes, (n,), generator=generator)


def test_agrees_with_scikit_learn() -> None:
    log_probs, y = beliefs()
    probs = log_probs.double().exp()
    probs = probs / probs.sum(-1, keepdim=True)
    assert float(accuracy(log_probs, y)) == accuracy_score(y, log_probs.argmax(-1))
    assert int(num_errors(log_probs, y)) == round(len(y) * (1 - accuracy_score(y, log_probs.argmax(-1))))
    assert float(nll(log_probs, y)) == pytest.approx(log_loss(y, probs), abs=1e-6)
    assert float(brier(log_probs, y)) == pytest.approx(brier_score_loss(y, probs, scale_by_half=False), abs=1e-6)


def test_brier_is_a_sum_over_classes_and_binary_is_not_halved() -> None:
    log_probs = torch.tensor([[0.3, 0.7]]).log()
    assert float(brier(log_probs, torch.tensor([0]))) == pytest.approx(2 * 0.7**2)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_known_values(num_classes: int) -> None:
    y = torch.arange(num_classes)
    uniform = torch.zeros(num_classes, num_classes).log_softmax(-1)
    assert float(brier(uniform, y)) == pytest.approx(1 - 1 / num_classes)
    assert float(nll(uniform, y)) == pytest.approx(math.log(num_classes))
    certain = torch.eye(num_classes).log()
    assert [float(m(certain, y)) for m in (brier, nll, num_errors)] == [0, 0, 0]
    wrong = y.roll(1)
    assert float(brier(certain, wrong)) == 2
    assert float(nll(certain, wrong)) == math.inf


def test_clip_bounds_the_nll_and_its_share_is_told() -> None:
    log_probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]).log()
    y = torch.tensor([1, 0, 0])
    assert float(nll(log_probs, y, clip=1e-3)) == pytest.approx(-(math.log(1e-3) + math.log(0.5) + math.log(0.25)) / 3)
    assert float(clipped_share(log_probs, y, clip=1e-3)) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="clip"):
        nll(log_probs, y, clip=0.0)


def test_void_sites_do_not_count() -> None:
    log_probs, y = beliefs(60)
    image, labels = log_probs.reshape(3, 4, 5, 4), y.clone()
    labels[::7] = 255
    kept = labels != 255
    for metric in (accuracy, nll, brier, num_errors):
        assert_close(metric(image, labels.reshape(3, 4, 5), void=255), metric(log_probs[kept], y[kept]))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), num_classes=st.integers(2, 6), spread=st.booleans())
def test_brier_decomposition_recombines(seed: int, n: int, num_classes: int, spread: bool) -> None:
    log_probs, y = beliefs(n, num_classes, seed, scale=3.0)
    if not spread:
        log_probs = log_probs[:1].expand(n, num_classes)  # one group, all rows alike
    log_probs = log_probs.double().log_softmax(-1)
    terms = brier_decomposition(log_probs, y)
    whole = terms.uncertainty - terms.resolution + terms.reliability + terms.within_variance - terms.within_covariance
    assert_close(whole, brier(log_probs, y), rtol=0, atol=1e-12)
    assert 0 <= float(brier(log_probs, y)) <= 2
    if not spread:
        assert_close(terms.within_variance, terms.within_variance * 0, rtol=0, atol=1e-12)


def test_brier_decomposition_against_loops() -> None:
    log_probs, y = beliefs(80, 3)
    terms = brier_decomposition(log_probs, y)
    p, label = log_probs.double().exp(), log_probs.argmax(-1)
    onehot = torch.eye(3, dtype=torch.float64)[y]
    marginal = onehot.mean(0)
    resolution = reliability = 0.0
    for k in range(3):
        rows = label == k
        share = rows.double().mean()
        resolution += share * (onehot[rows].mean(0) - marginal).square().sum()
        reliability += share * (onehot[rows].mean(0) - p[rows].mean(0)).square().sum()
    assert_close(terms.uncertainty, 1 - marginal.square().sum())
    assert_close(terms.resolution, resolution)
    assert_close(terms.reliability, reliability)


def test_the_three_term_decomposition_would_not_recombine() -> None:
    terms = brier_decomposition(*beliefs(80, 3))
    assert abs(float(terms.within_variance - terms.within_covariance)) > 0.05


def test_the_reference_codes_three_numbers() -> None:
    """Written from its formulas: a confusion matrix, and a Brier score without the constant."""
    log_probs, y = beliefs(80, 3)
    p, label = log_probs.double().exp(), log_probs.argmax(-1)
    table = torch.zeros(3, 3, dtype=torch.float64)
    for guess, true in zip(label.tolist(), y.tolist(), strict=True):
        table[guess, true] += 1
    of_group = table / table.sum(-1, keepdim=True)
    marginal = table.sum(0) / 80
    terms = brier_terms_of_ovadia(log_probs, y)
    assert_close(terms.uncertainty, -marginal.square().sum())
    assert_close(terms.resolution, (table.sum(-1) / 80 * (of_group - marginal).square().sum(-1)).sum())
    assert_close(terms.reliability, (of_group[label] - p).square().sum(-1).mean())
    theirs = (p.square().sum(-1) - 2 * p[torch.arange(80), y]).mean()
    missing = brier_decomposition(log_probs, y).within_covariance
    assert_close(terms.uncertainty - terms.resolution + terms.reliability - missing, theirs)
    assert abs(float(missing)) > 0.01


def test_skill_is_measured_from_the_label_shares() -> None:
    _, y = beliefs(100, 3)
    shares = torch.bincount(y).double() / 100
    assert float(brier_skill(shares.log().expand(100, 3), y)) == pytest.approx(0, abs=1e-9)
    assert float(brier_skill(torch.eye(3).log()[y], y)) == 1
    assert float(brier_skill(torch.eye(3).log()[(y + 1) % 3], y)) < -1
    assert brier_skill(torch.eye(3).log()[y[:1]], y[:1]).isnan()


def test_spherical_score() -> None:
    log_probs = torch.tensor([[0.6, 0.4], [0.5, 0.5]], dtype=torch.float64).log()
    expected = (0.6 / math.sqrt(0.36 + 0.16) + 0.5 / math.sqrt(0.5)) / 2
    assert float(spherical(log_probs, torch.tensor([0, 1]))) == pytest.approx(expected)
    assert float(spherical(torch.eye(2).log(), torch.arange(2))) == 1
