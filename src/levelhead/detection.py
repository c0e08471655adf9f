"""How well scores tell rows of another kind from the task's own: every score of two sets of beliefs, measured alike.

A higher score means "more out-of-distribution", whatever the score.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.detectors._logits import log_rest
from levelhead.metrics.ranking import aupr, auroc, fpr95

MEASURES: Mapping[str, Literal["higher", "lower"]] = {
    "auroc": "higher",
    "aupr_out": "higher",
    "aupr_in": "higher",
    "fpr95_out": "lower",
    "fpr95_in": "lower",
}


def better(metric: str) -> Literal["higher", "lower"] | None:
    """Which way of `<measure>_<score>` is better, for scores of any name; None for metrics that measure none."""
    return next((way for measure, way in MEASURES.items() if metric.startswith(f"{measure}_")), None)


def detection_scores(inside: Beliefs, outside: Beliefs) -> dict[str, float]:
    """How well each score tells the rows of `outside` from those of `inside`.

    prevalence: the share of outer rows, on which AUPR depends. For every score that both have, `<measure>_<score>`:

    auroc      P(an outer row scores higher than an inner one), ties half; 1/2 is chance.
    aupr_out   average precision of finding the outer rows by high score; chance is the prevalence.
    aupr_in    average precision of finding the inner rows by low score; chance is 1 - prevalence.
    fpr95_out  share of inner rows flagged where 95 % of the outer ones are caught (OpenOOD, pytorch-ood).
    fpr95_in   share of outer rows accepted where 95 % of the inner ones are (ODIN and most papers before).

    Scores: confidence (1 - max probability; labels only), total (entropy, or variance), epistemic (mutual information,
    or variance of the means), density (of the features, where modelled), and the detectors stored with the beliefs.
    """
    first, second = ood_scores(inside), ood_scores(outside)
    found = {"prevalence": len(outside) / (len(inside) + len(outside))}
    for name in sorted(first.keys() & second.keys()):
        found |= {f"{measure}_{name}": value for measure, value in measured(first[name], second[name]).items()}
    return found


def measured(inside: Float[Tensor, " row"], outside: Float[Tensor, " other"]) -> dict[str, float]:
    """All measures of one score; see `detection_scores`."""
    score = torch.cat([inside, outside])
    outer = torch.arange(len(score), device=score.device) >= len(inside)
    return {
        "auroc": float(auroc(score, outer)),
        "aupr_out": float(aupr(score, outer)),
        "aupr_in": float(aupr(score, outer, positive="id")),
        "fpr95_out": float(fpr95(score, outer)),
        "fpr95_in": float(fpr95(score, outer, positive="id")),
    }


def ood_scores(beliefs: Beliefs) -> dict[str, Float[Tensor, " row"]]:
    """Everything in some beliefs that should be higher outside the distribution."""
    found = {"total": beliefs.total, "epistemic": beliefs.epistemic}
    if isinstance(beliefs, ClassBeliefs):
        found["confidence"] = log_rest(beliefs.log_probs)  # in log space: probabilities near one would tie
    if beliefs.log_density is not None:
        found["density"] = -beliefs.log_density
    return found | dict(beliefs.detectors)
