"""MC dropout on smoothed feature maps: a few passes do what many did."""

from levelhead.network import Backbone
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing


def smoothed_mc_dropout(
    backbone: Backbone,
    *,
    p: float = 0.3,
    num_samples: int = 2,
    temperature: float = 10.0,
    epochs: int = 200,
    lr: float = 0.1,
    batch_size: int = 128,
) -> Recipe:
    """Park & Kim (arXiv 2105.12639): Smooth before every subsampling step, element-wise dropout 0.3, two passes.

    Dropout stands in residual blocks before the last convolution, and behind the activations of networks without
    blocks. Training is ordinary, as the authors train for CIFAR: one epoch of warm-up, lr times 0.2 at 30, 60 and 80 %
    of the epochs, weight decay 5e-4.
    """
    return Recipe(
        backbone=backbone,
        surgery=(
            SpatialSmoothing(temperature=temperature),
            MCDropout(p=p, num_samples=num_samples, where="blocks_or_activations"),
        ),
        sampler=SGD(epochs=epochs, lr=lr, batch_size=batch_size, warmup_epochs=1.0, schedule="step"),
    )
