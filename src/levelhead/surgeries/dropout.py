"""Dropout as a regulariser: masks in training, none at prediction."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.dropout import checked_rate
from levelhead.layers.places import Place, before_weights
from levelhead.network import Network
from levelhead.types import Reference

WHERE = ("head", "layers")


@dataclass(frozen=True)
class Dropout:
    """Before a layer, x * mask / (1 - p) in training, each value of the mask 0 with probability p; x at prediction.

    For masks that are also drawn at prediction there is MCDropout.

    p      rate, in [0, 1).
    where  "head": before the head; "layers": before every convolution and linear layer but the first, head included.

    Srivastava et al., 2014.
    """

    reference: ClassVar[Reference] = Reference(
        "Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov",
        2014,
        title="Dropout: a simple way to prevent neural networks from overfitting",
    )
    exact_at_rest: ClassVar[bool] = True
    p: float = 0.5
    where: str = "head"

    def __post_init__(self) -> None:
        checked_rate(self.p, "Dropout")
        if self.where not in WHERE:
            raise ValueError(f"Dropout: where must be one of {', '.join(map(repr, WHERE))}; got {self.where!r}")

    def __call__(self, network: Network) -> Network:
        """The network with dropout."""
        new = network
        if self.where == "layers":
            places = before_weights(network.trace())
            if places:
                new = self.inserted(network, places)
        return new.appended(nn.Dropout(self.p), name="dropout", author="Dropout")

    def inserted(self, network: Network, places: tuple[Place, ...]) -> Network:
        """Dropout in front of some modules."""
        wanted = {place.name for place in places}

        def make(module: nn.Module) -> nn.Module:
            return Around(module, before=nn.Dropout(self.p))

        return network.replace(lambda name, module: name in wanted, make, inside=True, author="Dropout")
