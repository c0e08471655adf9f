"""Hyper-deep ensembles as published: penalties by layer and label smoothing are searched."""

from levelhead.hyper_deep import HyperDeepEnsemble
from levelhead.network import Backbone
from levelhead.objectives.label_smoothing import LabelSmoothing
from levelhead.objectives.layer_l2 import LayerL2
from levelhead.recipe import Recipe
from levelhead.spaces.log_uniform import LogUniform


def hyper_deep_ensembles(
    backbone: Backbone, *, size: int = 4, candidates: int = 100, stratify: bool = True, refit: bool = False
) -> HyperDeepEnsemble:
    """Wenzel et al. (arXiv 2006.13570): 4 members from 100 candidates; L2 of features, of the head's weight and of its
    bias in [1e-2, 1e2] / N, label smoothing in [1e-5, 0.2].

    The authors give each stage of a ResNet its own penalty; for that, write the groups of your network's parameters
    into `member.regularisers.layer_l2`, and a path to each coefficient into the space.
    """
    penalty = LayerL2(groups=("features.*", "head.*weight", "head.*bias"), coefficients=(10.0, 10.0, 10.0))
    l2 = (LogUniform(f"regularisers.layer_l2.coefficients.{group}", 1e-2, 1e2) for group in range(3))
    smoothing = LogUniform("regularisers.label_smoothing.smoothing", 1e-5, 0.2)
    return HyperDeepEnsemble(
        member=Recipe(backbone=backbone, regularisers=(LabelSmoothing(smoothing=1e-5), penalty)),
        space=(*l2, smoothing),
        size=size,
        candidates=candidates,
        stratify=stratify,
        refit=refit,
    )
