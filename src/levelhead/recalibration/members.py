"""A map of probabilities, applied to a mixture: the pooled law is mapped, and the members follow it.

Pooled first, calibrated then: q = g(p) with p the mixture. So that total, aleatoric and epistemic uncertainty still add
up, member m becomes s g(p_m) + (q - s r), where r is the mixture of the g(p_m) and s = min_k q_k / r_k in (0, 1] is the
most of their disagreement that leaves probabilities. The members mix to q exactly; one member is simply mapped; members
that agree still agree. total is the entropy of q; aleatoric and epistemic are its parts under that choice, which is the
library's own: nothing in a map of pooled probabilities says how members should share it.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import CategoricalMixture, Predictive, along_members
from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import MIN_LOG_PROB, FittedOnRows, categorical, undecided

Map = Callable[[Float[Tensor, "*batch class"]], Float[Tensor, "*batch class"]]


def through(belief: CategoricalMixture, mapping: Map) -> CategoricalMixture:
    """The mixture whose pooled log probabilities are mapping(log_probs), as members under the same weights.

    `mapping` takes and gives log probabilities in float64 over any leading axes, normalised and above -inf.
    """
    logits = belief.logits.double().clamp_min(MIN_LOG_PROB)
    members = mapping(logits)
    if belief.num_members > 1:
        weights = along_members(belief.log_weights.double(), logits.ndim)
        pooled = mapping(torch.logsumexp(logits + weights, dim=0))
        mixed = torch.logsumexp(members + weights, dim=0)
        log_share = (pooled - mixed).amin(-1, keepdim=True)
        left = -torch.expm1(log_share + mixed - pooled)  # (q - s r) / q, 0 where the minimum is
        rest = pooled + left.clamp_min(torch.finfo(left.dtype).tiny).log()
        members = torch.logaddexp(rest, log_share + members)
    return CategoricalMixture(members.to(belief.logits.dtype), belief.log_weights, belief.log_density)


class Recalibrated(FittedOnRows):
    """A predictor whose pooled class probabilities go through a map that was fitted on held-out rows.

    Differentiable in x where the map is; the inner beliefs' sets and abstentions are refused. Subclasses store `inner`,
    `fitted_on` and the map's numbers, and say what the map is.
    """

    inner: Predictor

    @abstractmethod
    def mapped(self, log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        """The map: log probabilities to log probabilities, float64."""

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        step = type(self).__name__
        return through(categorical(undecided(self.inner(x), step=step), step=step), self.mapped)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)
