"""Self-tuning networks as published: one network whose regularisers are tuned while it trains."""

from levelhead.network import Backbone
from levelhead.recipe import Recipe
from levelhead.samplers.alternating import Alternating
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.self_tuning import SelfTuning


def self_tuning_networks(backbone: Backbone, *, epochs: int = 10, lr: float = 0.01, centred: bool = False) -> Recipe:
    """MacKay et al. (arXiv 1903.03088): dropout from 0.05, here with an L2 coefficient for each stage too.

    SGD 0.01 with momentum 0.9, a tuning step of Adam 3e-3 after every two, none in the first 5 epochs (of hundreds; a
    tenth of `epochs` here, where that is less); tau 1e-3. centred=True takes Delta-STN's parametrisation.
    """
    inner = SGD(epochs=epochs, lr=lr, weight_decay=0.0, schedule="constant")
    surgery = SelfTuning(dropout_range=(1e-3, 0.9), dropout_where="layers", centred=centred)
    sampler = Alternating(inner=inner, every=2, lr=3e-3, entropy="sum", warmup_epochs=min(5.0, epochs / 10))
    return Recipe(backbone=backbone, surgery=(surgery,), sampler=sampler)
