"""Deep ensembles of smoothed networks."""

from levelhead.network import Backbone
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing


def smoothed_ensembles(
    backbone: Backbone,
    *,
    size: int = 5,
    temperature: float = 10.0,
    epochs: int = 200,
    lr: float = 0.1,
    batch_size: int = 128,
) -> DeepEnsemble:
    """Park & Kim (arXiv 2105.12639): independent networks, each with a Smooth before every subsampling step.

    Members are trained as the authors train for CIFAR: one epoch of warm-up, lr times 0.2 at 30, 60 and 80 % of the
    epochs, weight decay 5e-4.
    """
    sampler = SGD(epochs=epochs, lr=lr, batch_size=batch_size, warmup_epochs=1.0, schedule="step")
    member = Recipe(backbone=backbone, surgery=(SpatialSmoothing(temperature=temperature),), sampler=sampler)
    return DeepEnsemble(member=member, size=size)
