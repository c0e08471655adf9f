"""A mixture of Laplace approximations: uncertainty within each member of a deep ensemble and between them."""

from levelhead.network import Backbone
from levelhead.posthoc.laplace import Laplace
from levelhead.recipe import DeepEnsemble, Recipe


def mixture_of_laplace(
    backbone: Backbone,
    *,
    size: int = 5,
    structure: str = "kronecker",
    prior_precision: float | str = "marginal_likelihood",
    link: str = "probit",
) -> DeepEnsemble:
    """Eschenhagen et al. (arXiv 2111.03577): five members, last-layer Kronecker Laplace in each, probit, equal weights.

    Probabilities are averaged after the link, never logits. Every member chooses its own prior precision; the authors
    leave it at 1, which over-smooths a mixture. Evidence is no good weight of members: it differs by the size of the
    data, and one member would take all.
    """
    step = Laplace(structure=structure, prior_precision=prior_precision, link=link)
    return DeepEnsemble(member=Recipe(backbone=backbone, posthoc=(step,)), size=size)
