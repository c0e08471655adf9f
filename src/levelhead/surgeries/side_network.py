"""A second network beside the first, which will say how little the first one knows. The structure of NOMU."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import nn

from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.noiseless import Noiseless
from levelhead.nomu.likelihood import WithModelUncertainty
from levelhead.nomu.paper import PAPER
from levelhead.nomu.readout import Readout
from levelhead.nomu.side import SideBySide, SideHead, side_layers
from levelhead.types import CannotCompose


@dataclass(frozen=True)
class SideNetwork:
    """r(x) = W [h_f(x), h_r(x)] + b: h_f the network's last features, h_r those of a side network of its own.

    r is raw model uncertainty, one number a target, behind the network's own outputs; the predictive's epistemic
    variance is (c phi(r))^2 in standardised units (`Readout`). The likelihood's loss does not see r: `NomuLoss()`
    shapes it. Because r reads h_f, distance is measured in features that matter for the prediction.

    hidden  widths of the side network's hidden layers; ReLU, on the standardised inputs.
    detach  keep the gradient of r out of the network (the disjoint variant).
    l_min, l_max, c, shape  of `Readout`.

    Raises CannotCompose for classes, and for networks whose features are maps.

    Heiss et al., arXiv 2102.13640.
    """

    reference: ClassVar = PAPER
    wants_targets: ClassVar = True
    hidden: tuple[int, ...] = (1024, 1024, 1024)
    detach: bool = False
    l_min: float = 1e-3
    l_max: float = 2.0
    c: float = 1.0
    shape: Literal["smooth", "cut"] = "smooth"

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"SideNetwork: hidden wants one positive width a hidden layer, got {self.hidden}")
        self.readout  # noqa: B018  # its demands are ours

    @property
    def readout(self) -> Readout:
        """From r to a standard deviation."""
        return Readout(self.l_min, self.l_max, self.c, self.shape)

    def __call__(self, network: Network) -> Network:
        """The network with its side network."""
        likelihood = network.likelihood
        if not isinstance(likelihood, Gaussian | Noiseless):
            raise CannotCompose(
                f"SideNetwork() says model uncertainty about real targets, and this network's likelihood is "
                f"{type(likelihood).__name__}. For classes write posthoc=(Laplace(),) or the recipe sngp"
            )
        if network.channel != -1:
            raise CannotCompose(
                "SideNetwork() reads one vector of features an input, and these features are maps. Put a pooling layer "
                "at the end of the features"
            )
        bare = network.copy()
        bare.frozen = frozenset()  # these names are of places that are about to move
        new = bare.replace(
            lambda name, module: name == "features",
            lambda main: SideBySide(main, side_layers(network.signature, self.hidden)),
            author="SideNetwork",
        )
        raw = nn.Linear(network.width + self.hidden[-1], likelihood.num_targets)
        new = new.replace(
            lambda name, module: name == "head",
            lambda main: SideHead(main, raw, main_width=network.width, detach=self.detach),
            within="head",
            author="SideNetwork",
        )
        new.frozen = frozenset(_moved(name) for name in network.frozen)
        extended = WithModelUncertainty(likelihood, self.readout)
        new.signature = replace(network.signature, num_outputs=extended.num_outputs, likelihood=extended)
        return new


def _moved(name: str) -> str:
    """Where a module of the network is found beside the side network."""
    part, dot, rest = name.partition(".")
    return f"{part}.main{dot}{rest}" if part in ("features", "head") else name
