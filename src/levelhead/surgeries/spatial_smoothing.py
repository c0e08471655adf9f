"""Spatial smoothing: average neighbouring feature points before pixels are dropped, as if predictions were averaged."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.map_ends import behind_last_map, pre_activation
from levelhead.layers.places import Place, before_global_pool, before_subsampling
from levelhead.layers.smooth import PADDINGS, PROBS, Smooth
from levelhead.network import Network
from levelhead.types import CannotCompose, Reference

GROWN = (
    "SpatialSmoothing(padding='reference') makes maps a row and a column larger at every step, and this network wants "
    "maps of its own size: behind a flattened map stands a layer of fixed width, or maps are added up or joined. Write "
    "padding='zero', the same map without its first row and column. Before surgeries that add such layers (mlp_head) "
    "it also works as it is"
)


@dataclass(frozen=True)
class SpatialSmoothing:
    """Smooth(x) = Blur(Prob(x)), once before every step over pixels and once before the global pool; no parameters.

    Prob bounds the activations, t tanh(x / t) with t = 10; Blur is a 2x2 box of stride 1: each point becomes the mean
    of four neighbours, an ensemble of feature points in one pass. Strided convolutions, pools and the shortcuts beside
    them see the same smoothed map; the stem of ImageNet networks is left alone (arXiv 2105.12639, section 3).

    prob         "tanh", "sigmoid", "softmax", "clamp" (ReLU6 for t = 6), "scale", "bn_tanh", "bn" or "none": see
                 `layers.smooth.Smooth`. The BatchNorm variants have parameters.
    temperature  t; None for the authors' 10, 6 for "clamp", 5 for "scale".
    taps         of the separable filter: (1, 1), (1, 2, 1), (1, 4, 6, 4, 1), ...; (1,) for Prob without Blur.
    padding      "zero", "replicate" or "circular" keep the size. "reference" is the authors' code: a zero on every
                 side, hence a row and a column more, which networks without a global pool and U-Nets do not survive.
                 "zero" is the same map without its first row and column.
    rectify      the authors' ReLU inside Prob. It changes nothing behind a ReLU, where their networks have it, and
                 drops every negative value in pre-activation networks; hence off.
    final        smooth before the global pool too; where the network flattens its last map, that map. None: as the
                 authors, before a global pool, except in pre-activation networks (their last block ends without an
                 activation), and not before flattening.
    stem         also before the pool of ImageNet stems, which the authors leave alone.

    A trained network needs fine-tuning or new BatchNorm statistics afterwards. Raises NoLayerReplaced where the
    network has no pixels, or never steps over any, and CannotCompose where it does not survive larger maps.

    Park & Kim, arXiv 2105.12639.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim",
        2022,
        arxiv="2105.12639",
        title="Blurs Behave Like Ensembles: Spatial Smoothings to Improve Accuracy, Uncertainty, and Robustness",
    )
    prob: str = "tanh"
    temperature: float | None = None
    taps: tuple[float, ...] = (1.0, 1.0)
    padding: str = "zero"
    rectify: bool = False
    final: bool | None = None
    stem: bool = False

    def __post_init__(self) -> None:
        if self.prob not in PROBS:
            raise ValueError(f"SpatialSmoothing: prob must be one of {', '.join(map(repr, PROBS))}; got {self.prob!r}")
        if self.padding not in PADDINGS:
            raise ValueError(
                f"SpatialSmoothing: padding must be one of {', '.join(map(repr, PADDINGS))}; got {self.padding!r}"
            )
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"SpatialSmoothing: temperature must be positive, got {self.temperature}")
        if not self.taps or min(self.taps) < 0 or sum(self.taps) <= 0:
            raise ValueError(
                f"SpatialSmoothing: taps wants numbers that are not negative, such as (1, 2, 1); got {self.taps}"
            )

    def __call__(self, network: Network) -> Network:
        """The network with a Smooth at each place, found by running one example."""
        trace = network.trace()
        places, left = before_subsampling(trace, stem=self.stem)
        if self.final or (self.final is None and not pre_activation(trace)):
            pool = before_global_pool(trace)
            places, left = (*places, *pool.found), (*left, *pool.left)
            if self.final and not pool.found and not pool.left:
                places = (*places, *behind_last_map(trace))
        spots: dict[str, list[Place]] = {}
        for place in places:
            spots.setdefault(place.name, []).append(place)
        names: dict[nn.Module, str] = {}

        def match(name: str, module: nn.Module) -> bool:
            names[module] = name
            return name in spots

        def make(module: nn.Module) -> nn.Module:
            at = {("after" if place.behind else "before"): self.layer(place.channels) for place in spots[names[module]]}
            return Around(module, **at)

        try:
            new = network.replace(match, make, inside=True, author="SpatialSmoothing", skipped=left)
        except RuntimeError as error:  # of a layer that wants maps, or rows, of one size
            if self.padding == "reference":
                raise CannotCompose(GROWN) from error
            raise
        if new.width != network.width:  # a flattened map that the head reads
            raise CannotCompose(GROWN)
        return new

    def layer(self, channels: int) -> Smooth:
        """The layer for a map of so many channels."""
        return Smooth(
            self.prob,
            temperature=self.temperature,
            taps=self.taps,
            padding=self.padding,
            rectify=self.rectify,
            channels=channels,
        )
