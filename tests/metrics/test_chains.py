"""R-hat and effective sample size against loops over the definitions, and against chains whose answer is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from levelhead.metrics.chains import ess, normal_scores, rhat

DRAWS = torch.randn(4, 301, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def autoregressive(phi: float, chains: int = 4, draws: int = 4000) -> torch.Tensor:
    noise = torch.randn(chains, draws, dtype=torch.float64) * math.sqrt(1 - phi**2)
    found = [torch.randn(chains, dtype=torch.float64)]
    for step in range(1, draws):
        found.append(phi * found[-1] + noise[:, step])
    return torch.stack(found, 1)


def slow_rhat(draws: np.ndarray) -> float:
    """By loops, with scipy's ranks and normal quantiles."""
    half = draws.shape[1] // 2
    halves = np.array([piece for chain in draws for piece in (chain[:half], chain[-half:])])
    found = []
    for values in (halves, np.abs(halves - np.median(halves))):
        ranks = stats.rankdata(values, method="average").reshape(values.shape)
        scores = stats.norm.ppf((ranks - 3 / 8) / (values.size + 1 / 4))
        between = half * np.var([chain.mean() for chain in scores], ddof=1)
        within = np.mean([np.var(chain, ddof=1) for chain in scores])
        found.append(math.sqrt(((half - 1) / half * within + between / half) / within))
    return max(found)


def slow_ess(scores: np.ndarray) -> float:
    """Geyer's sequence by loops, of halves that are normal scores."""
    chains, num = scores.shape
    centred = scores - scores.mean(1, keepdims=True)
    covariance = [np.mean([(c[: num - t] * c[t:]).sum() / num for c in centred]) for t in range(num)]
    within = covariance[0] * num / (num - 1)
    pooled = covariance[0] + np.var(scores.mean(1), ddof=1)
    correlation = [1.0] + [1 - (within - covariance[t] * num / (num - 1)) / pooled for t in range(1, num)]
    total, last = 0.0, math.inf
    for t in range(0, num - 1, 2):
        pair = correlation[t] + correlation[t + 1]
        if pair <= 0:
            break
        last = min(last, pair)
        total += last
    return chains * num / max(2 * total - 1, 1 / math.log10(chains * num))


@pytest.mark.parametrize("kind", ["independent", "shifted", "wide", "tied", "correlated"])
def test_they_are_those_of_the_definitions(kind):
    draws = {
        "independent": DRAWS,
        "shifted": DRAWS + 0.3 * torch.arange(4.0)[:, None],
        "wide": DRAWS * torch.tensor([1.0, 1.0, 1.0, 3.0])[:, None],
        "tied": DRAWS.round(),
        "correlated": autoregressive(0.8, draws=300),
    }[kind]
    assert float(rhat(draws)) == pytest.approx(slow_rhat(draws.numpy()), rel=1e-10)
    half = draws.shape[1] // 2
    halves = torch.cat([draws[:, :half], draws[:, -half:]])
    assert float(ess(draws)) == pytest.approx(slow_ess(normal_scores(halves).numpy()), rel=1e-8)


def test_chains_that_agree_and_chains_that_do_not():
    assert float(rhat(DRAWS)) < 1.01
    assert float(rhat(DRAWS + torch.arange(4.0)[:, None])) > 1.2
    assert float(rhat(DRAWS * torch.tensor([1.0, 1.0, 1.0, 5.0])[:, None])) > 1.1  # the folded one sees the scale
    assert float(rhat(DRAWS[:1] + torch.linspace(0, 3, 301))) > 1.2  # one chain against itself: it drifts


@pytest.mark.parametrize("phi", [0.0, 0.6, 0.9, -0.4])
def test_the_size_of_autoregressive_chains(phi):
    draws = autoregressive(phi)
    assert float(ess(draws)) == pytest.approx(draws.numel() * (1 - phi) / (1 + phi), rel=0.2)


def test_ranks_know_no_units_and_quantities_do_not_meet():
    draws = torch.stack([DRAWS, DRAWS.exp(), -(DRAWS**3)], -1)
    assert_close(ess(draws), ess(DRAWS).expand(3))
    for part in ("bulk", "tail"):
        assert_close(ess(draws, part=part)[1], ess(draws[..., 1], part=part))
    assert_close(rhat(draws)[1], rhat(draws[..., 1]))


def test_tails_are_worth_less_where_a_chain_rests_in_them():
    resting = DRAWS.clone()
    resting[0, 100:160] = 4.0
    assert float(ess(resting, part="tail")) < 0.5 * float(ess(DRAWS, part="tail"))


def test_constants_have_no_answer_and_few_draws_are_refused():
    assert rhat(torch.ones(2, 10)).isnan()
    assert ess(torch.ones(2, 10)).isnan()
    for function in (rhat, ess):
        with pytest.raises(ValueError, match="at least 4 draws"):
            function(torch.randn(2, 3))
