"""LeNet-5 with ReLU and max-pooling, as today's baselines have it."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.conv_pool import ConvPool
from levelhead.layers.normalise import Normalise
from levelhead.layers.pixels import image_shape
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import Reference

DRAWN_FOR = 32  # pixels a side of the original input; smaller images are padded by 2, as MNIST's 28 were


@dataclass(frozen=True)
class LeNet:
    """conv 6 (5x5), pool, conv 16 (5x5), pool, linear 120, linear 84, head; images from 12 x 12.

    61,706 parameters for 28 x 28 x 1 and ten classes. Torch's default initialisation, Uniform(-1/sqrt(fan_in),
    1/sqrt(fan_in)), from torch's global generator. The paper's own network had tanh, mean pooling and sparse links
    between the convolutions.
    """

    reference: ClassVar[Reference] = Reference(
        "LeCun et al.", 1998, title="Gradient-Based Learning Applied to Document Recognition"
    )

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, stage1, stage2, flatten, hidden1, hidden2."""
        channels, height, width = image_shape(signature, spec="LeNet", smallest=12)
        padding = 2 if min(height, width) < DRAWN_FOR else 0
        sites = math.prod(((size + 2 * padding - 4) // 2 - 4) // 2 for size in (height, width))
        stages = OrderedDict(
            normalise=Normalise(signature.mean, signature.std),
            stage1=ConvPool(nn.Conv2d(channels, 6, kernel_size=5, padding=padding)),
            stage2=ConvPool(nn.Conv2d(6, 16, kernel_size=5)),
            flatten=nn.Flatten(),
            hidden1=linear(16 * sites, 120),
            hidden2=linear(120, 84),
        )
        return Network(nn.Sequential(stages), nn.Linear(84, signature.num_outputs), signature, width=84)


def linear(width: int, out: int) -> nn.Sequential:
    """Linear layer and ReLU."""
    return nn.Sequential(OrderedDict(linear=nn.Linear(width, out), act=nn.ReLU()))
