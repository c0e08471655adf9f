"""Hyper-batch ensembles as published: members share weights, and each tunes its own penalties while it trains."""

from levelhead.network import Backbone
from levelhead.recipe import Recipe
from levelhead.samplers.alternating import Alternating
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.hyper_batch import HyperBatch


def hyper_batch_ensembles(
    backbone: Backbone, *, num_members: int = 4, epochs: int = 10, interval: float = 0.67, lr: float = 0.1
) -> Recipe:
    """Wenzel et al. (arXiv 2006.13570): an L2 coefficient in [0.1, 100] / N for each stage, the head's weight and bias.

    The ranges take an Adam step of 1e-3 on validation rows after every third step of SGD with Nesterov momentum, tau is
    1e-3; the first intervals cover two of the three orders of magnitude. The authors train 250 epochs.
    """
    inner = SGD(epochs=epochs, lr=lr, weight_decay=0.0, nesterov=True, schedule="step", warmup_epochs=1.0)
    surgery = HyperBatch(num_members=num_members, interval=interval)
    return Recipe(backbone=backbone, surgery=(surgery,), sampler=Alternating(inner=inner))
