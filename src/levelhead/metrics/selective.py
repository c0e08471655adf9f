"""Decisions with a way out: how much better it gets when the uncertain examples are left to somebody else.

`uncertainty` (example,): higher is less sure. `error` (example,): 1 where wrong; some take any loss. Ties are averaged
over their orders (areas) or taken whole (thresholds), so that no result depends on the order of rows.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.metrics.ranking import augrc, aurc, risk_at_coverage, risk_coverage
from levelhead.types import Scalar


def oracle_aurc(error: Bool[Tensor, " example"]) -> Scalar:
    """AURC of the best order, (1 / n) sum_i max(0, i - n (1 - e)) / i: about e + (1 - e) log(1 - e) at error rate e."""
    _check_some(error)
    num, right = len(error), (~error).sum()
    rank = torch.arange(1, num + 1, dtype=torch.float64, device=error.device)
    return ((rank - right).clamp_min(0) / rank).mean()


def relative_aulc(uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"]) -> Scalar:
    """rAULC = (e - AURC) / (e - AURC of the best order): 1 for the best, 0 for a random order, negative for worse.

    Raises ValueError where all or none are wrong: every order is then the same. Postels et al., arXiv 2107.00649.
    """
    _check_both(error)
    rate = error.double().mean()
    return (rate - aurc(uncertainty, error)) / (rate - oracle_aurc(error))


def rejection_ratio(
    uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"] | Float[Tensor, " example"]
) -> Scalar:
    """Prediction rejection ratio: what rejecting by uncertainty gains over chance, relative to rejecting by error.

    (G_chance - G) / (G_chance - G_best) with G the area under (errors left) / n against rejection, that is AUGRC. 1 is
    the best order, 0 a random one; for errors of 0 and 1 it equals 2 AUROC - 1. Malinin, Mlodozeniec and Gales 2020
    (arXiv 1905.00076). Raises ValueError where all losses are equal.
    """
    error = error.double()
    if len(error) == 0 or bool(error.amin() == error.amax()):
        raise ValueError("error: wants losses that differ; where all are alike no order is better than another")
    chance = augrc(torch.zeros_like(error), error)
    return (chance - augrc(uncertainty, error)) / (chance - augrc(error, error))


def selective_accuracy(
    uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"], *, coverage: float
) -> Scalar:
    """Accuracy among the most certain share `coverage` of the examples, in [0, 1]."""
    return 1 - risk_at_coverage(uncertainty, error, coverage=coverage)


class Operating(NamedTuple):
    """Accept while uncertainty <= threshold: share accepted, and the mean error among them (NaN if none are)."""

    coverage: Scalar
    threshold: Scalar
    risk: Scalar


def coverage_at_risk(
    uncertainty: Float[Tensor, " example"],
    error: Bool[Tensor, " example"],
    *,
    risk: float,
    delta: float | None = None,
) -> Operating:
    """The largest share of examples that a threshold can accept at a mean error of at most `risk`.

    Ties go together. `delta`: the Clopper-Pearson upper bound of level 1 - delta must be at most `risk`, instead of the
    mean error; the bound holds for each threshold by itself, not for the one chosen among many. Coverage 0 and the
    threshold -inf where no threshold is good enough. Geifman and El-Yaniv, arXiv 1705.08500.
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk: wants a share in [0, 1], got {risk}")
    if delta is not None and not 0 < delta < 1:
        raise ValueError(f"delta: wants a probability in (0, 1), got {delta}")
    curve = risk_coverage(uncertainty, error)
    values, size = uncertainty.unique(return_counts=True)
    ends = size.cumsum(0) - 1  # the last example of each block
    wrong = (curve.risk * torch.arange(1, len(uncertainty) + 1, device=uncertainty.device))[ends].round().long()
    if delta is None:
        good = curve.risk[ends] <= risk + 1e-12
    else:
        good = _tail_at_most(delta, risk, counts=(ends + 1).tolist(), wrong=wrong.tolist()).to(uncertainty.device)
    if not bool(good.any()):
        nothing = curve.risk.new_tensor([0.0, -torch.inf, torch.nan])
        return Operating(*nothing.unbind())
    last = good.nonzero()[-1, 0]
    return Operating(curve.coverage[ends][last], values[last].double(), curve.risk[ends][last])


def _tail_at_most(delta: float, risk: float, *, counts: list[int], wrong: list[int]) -> Bool[Tensor, " level"]:
    """P(Binomial(n, risk) <= k) <= delta for each (n, k): the same as an upper Clopper-Pearson bound <= risk.

    Both grow along the list, so one example at a time changes the tail by one term of the distribution.
    """
    n = k = 0
    tail, good = 1.0, []
    for count, errors in zip(counts, wrong, strict=True):
        while n < count:
            tail -= risk * _binomial(n, k, risk)
            n += 1
            if k < errors:
                k += 1
                tail += _binomial(n, k, risk)
        good.append(tail <= delta)
    return torch.tensor(good)


def _binomial(n: int, k: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == n * p)
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(choose + k * math.log(p) + (n - k) * math.log1p(-p)) if k <= n else 0.0


def _check_some(error: Tensor) -> None:
    if len(error) == 0:
        raise ValueError("error: wants at least one example")


def _check_both(error: Tensor) -> None:
    _check_some(error)
    if not 0 < int(error.sum()) < len(error):
        raise ValueError(
            f"error: wants right and wrong examples, got {int(error.sum())} wrong of {len(error)}; "
            "no order of one kind is better than another"
        )
