"""A random-feature head: the last layer becomes a Gaussian process over the features."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.random_features import RandomFeatureReadout, RandomFeatures
from levelhead.network import Network
from levelhead.types import Reference


@dataclass(frozen=True)
class RandomFeatureHead:
    """outputs = beta' phi(h), phi(h) = a cos(h Omega / length_scale + b): Omega and b fixed, beta trained.

    rank          number of random features D.
    length_scale  distance between features h over which outputs decorrelate; None for sqrt(width / 2), as edward2. The
                  reference's image models take 20 at width 640; the useful range is about the median distance.
    orthogonal    orthogonal random features instead of independent ones.
    scaled        a = sqrt(2 / D), the kernel's own scale, instead of a = 1, which leaves the trunk its learning rate.
    layer_norm    normalise h first, without parameters: both this and length_scale then act.

    The head is replaced whatever it was; members (BatchEnsemble) and samples share it and differ in h. The outputs are
    the Gaussian process's mean: `GPPosterior()` after training adds its variance.

    Liu et al., arXiv 2205.00403; random features after Rahimi & Recht, 2007.
    """

    reference: ClassVar = Reference(
        "Liu et al.",
        2022,
        arxiv="2205.00403",
        title="A Simple Approach to Improve Single-Model Deep Uncertainty via Distance-Awareness",
    )
    rank: int = 1024
    length_scale: float | None = None
    orthogonal: bool = True
    scaled: bool = False
    layer_norm: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"RandomFeatureHead: rank must be at least 1, got {self.rank}")
        if self.length_scale is not None and not self.length_scale > 0:
            raise ValueError(f"RandomFeatureHead: length_scale must be positive or None, got {self.length_scale}")

    def __call__(self, network: Network) -> Network:
        """The network with the new head."""

        def make(head: nn.Module) -> nn.Module:
            features = RandomFeatures(
                network.width,
                self.rank,
                length_scale=math.sqrt(network.width / 2) if self.length_scale is None else self.length_scale,
                orthogonal=self.orthogonal,
                scaled=self.scaled,
                layer_norm=self.layer_norm,
            )
            return RandomFeatureReadout(features, network.num_outputs)

        return network.replace(lambda name, module: name == "head", make, within="head", author="RandomFeatureHead")
