"""Self-tuning networks as published: one network whose regularisers are tuned while it trains."""

from dataclasses import replace

from levelhead.network import Backbone
from levelhead.recipe import Recipe
from levelhead.samplers.alternating import Alternating
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.self_tuning import SelfTuning


def self_tuning_networks(backbone: Backbone, *, epochs: int = 10, lr: float = 0.01, delta: bool = False) -> Recipe:
    """MacKay et al. (arXiv 1903.03088): dropout from 0.05, here with an L2 coefficient for each stage too.

    SGD 0.01 with momentum 0.9, a tuning step of Adam 3e-3 after every two, none in the first 5 epochs (of hundreds; a
    tenth of `epochs` here, where that is less); tau 1e-3.

    delta=True is Delta-STN (Bae & Grosse, arXiv 2010.13514): a centred, linearised response that starts at zero and is
    trained apart, sigma 1, a tuning step of 1e-2 after every five (Adam's here, RMSprop's there).
    """
    inner = SGD(epochs=epochs, lr=lr, weight_decay=0.0, schedule="constant")
    surgery = SelfTuning(dropout_range=(1e-3, 0.9), dropout_where="layers")
    sampler = Alternating(inner=inner, every=2, lr=3e-3, entropy="sum", warmup_epochs=min(5.0, epochs / 10))
    if delta:
        surgery = replace(surgery, centred=True, embedding_scale=0.0, sigma=1.0)
        sampler = replace(sampler, response="linear", every=5, lr=1e-2)
    return Recipe(backbone=backbone, surgery=(surgery,), sampler=sampler)
