"""Multi-layer perceptron, for tables of features and (flattened) small images."""

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from levelhead.layers.normalise import Normalise
from levelhead.likelihood import Signature
from levelhead.network import Network

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class MLP:
    """normalise -> [Linear (-> BatchNorm) -> activation] a hidden layer -> head.

    hidden      widths of the hidden layers; one of 50 is the network of the UCI regression benchmarks
                (Hernandez-Lobato & Adams, arXiv 1502.05336), (200, 200, 200) with BatchNorm the MNIST network of
                deep ensembles (arXiv 1612.01474).
    activation  one of relu, leaky_relu, elu, gelu, silu, softplus, tanh.
    batch_norm  BatchNorm between each linear layer and its activation.

    Weights and biases ~ Uniform(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default, from torch's global generator.
    """

    hidden: tuple[int, ...] = (50,)
    activation: str = "relu"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"MLP: hidden wants one positive width a hidden layer, such as (50,); got {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"MLP: activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")

    def __call__(self, signature: Signature) -> Network:
        """A network of stages normalise, (flatten,) hidden1, hidden2, ..."""
        stages: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(signature.mean, signature.std))
        if len(signature.input_shape) > 1:
            stages["flatten"] = nn.Flatten()
        width = math.prod(signature.input_shape)
        for i, out in enumerate(self.hidden, start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(width, out))
            if self.batch_norm:
                layers["norm"] = nn.BatchNorm1d(out)
            layers["act"] = ACTIVATIONS[self.activation]()
            stages[f"hidden{i}"] = nn.Sequential(layers)
            width = out
        return Network(nn.Sequential(stages), nn.Linear(width, signature.num_outputs), signature, width=width)
