"""How much members differ. Print it beside the members' accuracy: bad members differ too."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.types import Scalar


def disagreement(log_probs: Float[Tensor, "member *batch class"]) -> Scalar:
    """Mean over pairs of members and rows of 1[most likely classes differ], in [0, 1].

    Counted from the votes n_k of each row: a share sum_k n_k (n_k - 1) / (M (M - 1)) of the pairs agree.
    """
    return disagreement_by_row(log_probs).mean()


def disagreement_by_row(log_probs: Float[Tensor, "member *batch class"]) -> Float[Tensor, "*batch"]:
    """`disagreement` of every row: the share of pairs of members that hold different classes for most likely."""
    num = _at_least_two(log_probs)
    votes = F.one_hot(log_probs.argmax(-1), log_probs.shape[-1]).sum(0).double()
    return 1 - (votes * (votes - 1)).sum(-1) / (num * (num - 1))


def normalised_disagreement(log_probs: Float[Tensor, "member *batch class"], y: Int[Tensor, "*batch"]) -> Scalar:
    """Disagreement divided by the members' mean error rate; NaN where no member errs.

    Members that err independently, each in its own way, come near 2 - error; copies give 0. Fort et al.,
    arXiv 1912.02757.
    """
    error = (log_probs.argmax(-1) != y).double().mean()
    return disagreement(log_probs) / torch.where(error > 0, error, torch.nan)


def variation_ratio(log_probs: Float[Tensor, "member *batch class"]) -> Scalar:
    """Mean over rows of the share of members that do not vote for the most voted class, in [0, 1 - 1 / class]."""
    votes = F.one_hot(log_probs.argmax(-1), log_probs.shape[-1]).sum(0)
    return 1 - votes.amax(-1).double().mean() / len(log_probs)


def pairwise_kl(log_probs: Float[Tensor, "member *batch class"]) -> Scalar:
    """Mean over ordered pairs i != j and rows of KL(p_i || p_j), in nats; infinite where p_j = 0 < p_i.

    Equals [M sum_i p_i log p_i - (sum_i p_i) (sum_j log p_j)] / (M (M - 1)), summed over classes: linear in M.
    """
    return pairwise_kl_by_row(log_probs).mean()


def pairwise_kl_by_row(log_probs: Float[Tensor, "member *batch class"]) -> Float[Tensor, "*batch"]:
    """`pairwise_kl` of every row."""
    num = _at_least_two(log_probs)
    log_probs = log_probs.double()
    probs = log_probs.exp()
    own = -torch.special.entr(probs).sum(0)  # p log p, and 0 at p = 0
    mass, logs = probs.sum(0), log_probs.sum(0)
    cross = torch.where(mass > 0, mass * logs, 0.0)  # nobody's class: 0 * -inf
    pairs = (num * own - cross).sum(-1) / (num * (num - 1))
    return pairs.clamp_min(0.0)  # equal members leave rounding of either sign


class MemberErrors(NamedTuple):
    """Of every row, the share of the members that are wrong, and of the pairs of members of which both are."""

    alone: Float[Tensor, "*batch"]
    shared: Float[Tensor, "*batch"]


def member_errors(log_probs: Float[Tensor, "member *batch class"], y: Int[Tensor, "*batch"]) -> MemberErrors:
    """How often members are wrong, alone and by twos: what `error_correlation` is made from."""
    num = _at_least_two(log_probs)
    wrong = (log_probs.argmax(-1) != y).double().sum(0)
    return MemberErrors(wrong / num, wrong * (wrong - 1) / (num * (num - 1)))


def error_correlation(errors: MemberErrors) -> Scalar:
    """(P(both wrong) - e^2) / (e (1 - e)), e the members' mean error rate: the correlation of two members' errors.

    1 for copies, 0 for members that err independently, below 0 where they avoid each other's errors; NaN where no
    member errs, or all do always. Where members differ in how good they are it is the intraclass correlation.
    """
    rate = errors.alone.mean()
    spread = rate * (1 - rate)
    return (errors.shared.mean() - rate.square()) / torch.where(spread > 0, spread, torch.nan)


def pairwise_js(log_probs: Float[Tensor, "member *batch class"]) -> Scalar:
    """Mean over pairs i < j and rows of the Jensen-Shannon divergence H((p_i + p_j) / 2) - (H(p_i) + H(p_j)) / 2.

    In nats, in [0, log 2]; finite where KL is not. Time grows with the square of the members.
    """
    num = _at_least_two(log_probs)
    probs = log_probs.double().exp()
    entropy = torch.special.entr(probs).sum(-1)
    total = probs.new_zeros(())
    for i in range(num - 1):
        mixed = torch.special.entr((probs[i] + probs[i + 1 :]) / 2).sum(-1)
        total = (
            total + (mixed - (entropy[i] + entropy[i + 1 :]) / 2).clamp_min(0.0).reshape(num - 1 - i, -1).mean(1).sum()
        )
    return total / (num * (num - 1) / 2)


def pairwise_cosine(log_probs: Float[Tensor, "member *batch class"]) -> Scalar:
    """Mean over pairs of members and rows of the cosine between their probabilities, in [0, 1]: 1 for equal members."""
    num = _at_least_two(log_probs)
    unit = F.normalize(log_probs.double().exp(), dim=-1)
    return ((unit.sum(0).square().sum(-1) - num) / (num * (num - 1))).mean()


def _at_least_two(log_probs: Tensor) -> int:
    if len(log_probs) < 2:
        raise ValueError(f"log_probs: wants at least 2 members on the first axis, got {len(log_probs)}")
    return len(log_probs)
