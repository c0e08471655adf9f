import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from levelhead.metrics.diversity import (
    disagreement,
    error_correlation,
    member_errors,
    normalised_disagreement,
    pairwise_cosine,
    pairwise_js,
    pairwise_kl,
    variation_ratio,
)


@given(members=st.integers(2, 5), seed=st.integers(0, 1000), segmentation=st.booleans())
def test_against_loops_over_pairs(members: int, seed: int, segmentation: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (members, 3, 4, 5) if segmentation else (members, 12, 5)
    log_probs = torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1)
    flat = log_probs.reshape(members, 12, 5)
    label = flat.argmax(-1)
    pairs = list(itertools.permutations(range(members), 2))
    differ = sum(float((label[i] != label[j]).double().mean()) for i, j in pairs) / len(pairs)
    kl = sum(float(F.kl_div(flat[j], flat[i], reduction="batchmean", log_target=True)) for i, j in pairs) / len(pairs)
    assert float(disagreement(log_probs)) == pytest.approx(differ)
    assert float(pairwise_kl(log_probs)) == pytest.approx(kl)
    mixed = {(i, j): torch.logaddexp(flat[i], flat[j]) - math.log(2) for i, j in pairs}
    js = sum(float((flat[i].exp() * (flat[i] - mixed[i, j])).sum(-1).mean()) for i, j in pairs) / len(pairs)
    assert float(pairwise_js(log_probs)) == pytest.approx(js)
    cosine = sum(float(F.cosine_similarity(flat[i].exp(), flat[j].exp(), dim=-1).mean()) for i, j in pairs)
    assert float(pairwise_cosine(log_probs)) == pytest.approx(cosine / len(pairs))
    modes = [max((label[:, n] == k).sum().item() for k in range(5)) for n in range(12)]
    assert float(variation_ratio(log_probs)) == pytest.approx(1 - sum(modes) / (12 * members))


def test_equal_members_do_not_differ() -> None:
    log_probs = torch.randn(1, 50, 10).log_softmax(-1).expand(4, 50, 10)
    assert float(disagreement(log_probs)) == 0
    assert float(variation_ratio(log_probs)) == 0
    assert 0 <= float(pairwise_kl(log_probs)) < 1e-12
    assert 0 <= float(pairwise_js(log_probs)) < 1e-12
    assert float(pairwise_cosine(log_probs)) == pytest.approx(1)


def test_probabilities_of_zero() -> None:
    nobody = torch.tensor([[[0.5, 0.5, 0.0]], [[0.25, 0.75, 0.0]]]).double()
    expected = [(p * (p / q).log()).sum() for p, q in itertools.permutations(nobody[:, 0, :2], 2)]
    assert_close(pairwise_kl(nobody.log()), torch.stack(expected).mean())
    disjoint = torch.eye(2).reshape(2, 1, 2).log()
    assert float(pairwise_kl(disjoint)) == math.inf
    assert float(pairwise_js(disjoint)) == pytest.approx(math.log(2))
    assert float(pairwise_cosine(disjoint)) == 0
    assert float(disagreement(disjoint)) == 1


def test_disagreement_in_units_of_the_error() -> None:
    y = torch.zeros(4, dtype=torch.long)
    votes = torch.tensor([[0, 0, 1, 2], [0, 1, 0, 2]])  # errors of 1/2; they differ on two rows of four
    log_probs = F.one_hot(votes, 3).double().log()
    assert float(normalised_disagreement(log_probs, y)) == pytest.approx(1.0)
    assert normalised_disagreement(log_probs[:, :1], y[:1]).isnan()


@pytest.mark.parametrize("metric", [disagreement, pairwise_kl, pairwise_js, pairwise_cosine])
def test_one_member_has_nobody_to_differ_from(metric) -> None:
    with pytest.raises(ValueError, match="2 members"):
        metric(torch.randn(1, 3, 4).log_softmax(-1))


def test_errors_of_copies_are_one_and_of_strangers_uncorrelated() -> None:
    y = torch.zeros(20_000, dtype=torch.long)
    wrong = torch.rand(3, 20_000) < 0.3
    votes = F.one_hot(wrong.long(), 2).float().log()
    assert float(error_correlation(member_errors(votes, y))) == pytest.approx(0, abs=0.02)
    copies = votes[:1].expand(3, -1, -1)
    assert float(error_correlation(member_errors(copies, y))) == pytest.approx(1)
    avoiding = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]).log()
    assert float(error_correlation(member_errors(avoiding, y[:2]))) == pytest.approx(-1)
    assert math.isnan(float(error_correlation(member_errors(copies[:, :0], y[:0]))))


def test_the_correlation_of_two_alike_members_is_pearsons() -> None:
    wrong = torch.tensor([[1, 1, 0, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0, 1, 0, 0]])
    votes = F.one_hot(wrong, 2).float().log()
    found = error_correlation(member_errors(votes, torch.zeros(8, dtype=torch.long)))
    assert float(found) == pytest.approx(float(torch.corrcoef(wrong.double())[0, 1]))
