"""Greedy selection against brute force, the sheet's toy, and its invariants."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.selection import OBJECTIVES, greedy_select, greedy_select_densities


def models(count: int = 6, rows: int = 40, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (rows,), generator=generator)
    logits = torch.randn(count, rows, classes, generator=generator) + 1.5 * F.one_hot(y, classes)
    return logits.log_softmax(-1), y


def with_a_strong_one() -> tuple[torch.Tensor, torch.Tensor]:
    """Models of which one is picked several times."""
    log_probs, y = models(count=8, rows=200)
    generator = torch.Generator().manual_seed(9)
    strong = 1.5 * F.one_hot(y, 4) + 0.8 * torch.randn(200, 4, generator=generator)
    log_probs[0] = strong.log_softmax(-1)
    return log_probs, y


def score(probs: torch.Tensor, y: torch.Tensor, objective: str) -> float:
    """The score of one set of probabilities (row, class), written out."""
    rows = torch.arange(len(y))
    nll = -probs[rows, y].log().mean()
    accuracy = (probs.argmax(-1) == y).double().mean()
    brier = (probs - F.one_hot(y, probs.shape[-1])).square().sum(-1).mean()
    return float({"nll": nll, "accuracy": -accuracy, "nll-acc": nll - accuracy, "brier": brier}[objective])


def slowly(log_probs: torch.Tensor, y: torch.Tensor, k: int, objective: str) -> tuple[list[int], list[float]]:
    """The greedy loop with every mixture computed anew."""
    probs = log_probs.double().exp()
    picks: list[int] = []
    history: list[float] = []
    while len(set(picks)) < k:
        tried = [score(probs[[*picks, j]].mean(0), y, objective) for j in range(len(probs))]
        best = min(range(len(tried)), key=tried.__getitem__)
        if history and not tried[best] < history[-1] - 1e-12:
            break
        picks.append(best)
        history.append(tried[best])
    return picks, history


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("k", [1, 3, 6])
def test_it_equals_the_loop_with_recomputed_mixtures(objective, k):
    for seed in range(4):
        log_probs, y = models(seed=seed)
        found = greedy_select(log_probs, y, k, objective=objective)
        picks, history = slowly(log_probs, y, k, objective)
        assert list(found.indices) == picks
        assert_close(torch.tensor(found.history), torch.tensor(history), rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_score_falls_strictly_from_the_best_single_model(objective):
    log_probs, y = models(count=8)
    found = greedy_select(log_probs, y, 4, objective=objective)
    alone = [score(p.double().exp(), y, objective) for p in log_probs]
    assert found.indices[0] == alone.index(min(alone))
    assert all(later < earlier for earlier, later in itertools.pairwise(found.history))
    assert len(found.members) <= 4


def test_k_bounds_different_models_and_repeated_picks_are_weights():
    log_probs, y = with_a_strong_one()
    found = greedy_select(log_probs, y, 6)
    assert len(found.indices) > len(found.members)
    assert len(set(found.indices)) == len(found.members) <= 6
    assert sum(found.weights) == pytest.approx(1)
    multiset = log_probs[list(found.indices)].exp().mean(0)
    weighted = torch.einsum("m,mrc->rc", torch.tensor(found.weights), log_probs[list(found.members)].exp())
    assert_close(multiset, weighted)
    assert score(weighted.double(), y, "nll") == pytest.approx(found.history[-1], abs=1e-6)
    assert_close(found.log_weights.exp().sum(), torch.tensor(1.0))


def test_the_toy_takes_what_completes_the_best_and_not_the_second_best():
    truth = torch.tensor([[0.90, 0.30], [0.85, 0.30], [0.40, 0.60]])
    log_probs = torch.stack([truth, 1 - truth], -1).log()
    found = greedy_select(log_probs, torch.zeros(2, dtype=torch.long), 2)
    assert found.members == (0, 2)
    assert_close(torch.tensor(found.history), torch.tensor([0.6547, 0.6153]), rtol=0, atol=1e-3)


def test_one_model_is_the_best_one_once():
    log_probs, y = models()
    found = greedy_select(log_probs, y, 1)
    assert len(found.indices) == 1
    assert found.weights == (1.0,)


def test_order_does_not_matter_and_copies_at_the_end_change_nothing():
    log_probs, y = models()
    found = greedy_select(log_probs, y, 3)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    turned = greedy_select(log_probs[order], y, 3)
    assert tuple(int(order[j]) for j in turned.indices) == found.indices
    assert greedy_select(torch.cat([log_probs, log_probs]), y, 3) == found


def test_without_replacement_nothing_is_picked_twice():
    log_probs, y = with_a_strong_one()
    found = greedy_select(log_probs, y, 5, with_replacement=False)
    assert len(set(found.indices)) == len(found.indices)


def test_max_picks_bounds_repeated_ones_too():
    log_probs, y = with_a_strong_one()
    whole = greedy_select(log_probs, y, 5)
    assert greedy_select(log_probs, y, 5, max_picks=2).indices == whole.indices[:2]


def test_densities_of_targets_select_as_probabilities_do():
    log_probs, y = models()
    truth = log_probs.gather(-1, y.expand(len(log_probs), -1)[..., None])[..., 0]
    assert greedy_select_densities(truth, 3) == greedy_select(log_probs, y, 3)


def test_tiny_probabilities_stay_finite():
    log_probs = torch.tensor([[[0.0, -2000.0]], [[-1500.0, 0.0]]])
    found = greedy_select(log_probs, torch.tensor([1]), 2)
    assert found.members == (1,)
    assert found.history == (0.0,)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"k": 0}, "k must be at least 1"),
        ({"objective": "auroc"}, "objective must be one of"),
        ({"max_picks": 0}, "max_picks must be"),
        ({"log_probs": torch.randn(2, 40, 4)}, "log_softmax"),
    ],
)
def test_errors_say_what_is_wanted(changes, text):
    log_probs, y = models()
    with pytest.raises(ValueError, match=text):
        greedy_select(**{"log_probs": log_probs, "y": y, "k": 2, **changes})


def test_models_that_rule_out_the_truth_are_refused():
    with pytest.raises(ValueError, match="probabilities of zero"):
        greedy_select_densities(torch.full((2, 3), -math.inf), 2)
