"""MC dropout: dropout that also draws at prediction; the mean over the draws is the belief."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.behind_activations import behind_activations, behind_each_convolution
from levelhead.layers.dropout import Dropout, DropoutAs, FunctionalDropout, checked_rate, is_dropout
from levelhead.layers.places import Place, before_weights, inside_blocks
from levelhead.network import Network
from levelhead.probe import Trace
from levelhead.types import Reference

PLACES = ("auto", "existing", "blocks", "layers", "activations", "convolutions", "blocks_or_activations", "head")
SEVERAL = ("blocks", "layers", "activations", "convolutions", "blocks_or_activations")
RATE = 0.1
ATTENTION = "its dropout of attention weights is inside torch's attention: it draws in training only"


@dataclass(frozen=True)
class MCDropout:
    """p(y | x) = 1/S sum_s softmax f(x; mask_s) over S = num_samples draws of the dropout masks, BatchNorm at rest.

    Training draws one mask a pass, as ever; eval() draws nothing, and is then equal to the network with dropout off.

    p            rate, in [0, 1). None: dropout that the network has keeps its own rate, and a new one gets 0.1.
    num_samples  draws at prediction. The papers use 5 to 128; most of the gain in likelihood comes with the first ten.
    where        "existing"  the network's own dropout: modules, and functions called in anybody's code. Where all its
                             modules have rate 0, they are places for p.
                 "blocks"    new, in each residual block before its last convolution (arXiv 2105.12639).
                 "layers"    new, before every convolution and linear layer but the first, the head included
                             (arXiv 1906.02530).
                 "activations"   new, behind the activation of each convolution: VGG and AlexNet in arXiv 2105.12639.
                 "convolutions"  new, behind each convolution: pre-activation VGG, likewise.
                 "blocks_or_activations"  "blocks" where the network has residual blocks, else "activations".
                 "head"      new, before the head alone: all draws share one pass through the features.
                 "auto"      the first of "existing", "blocks", "layers" that there is.
    channelwise  new dropout drops whole channels instead of single elements.
    last         of the new places in the features, the last so many; None for all. What is in front of the first one
                 is computed once for all draws.

    Raises NoLayerReplaced where "existing", "blocks", "activations" or "convolutions" finds none.

    Gal & Ghahramani, arXiv 1506.02142.
    """

    reference: ClassVar[Reference] = Reference(
        "Gal and Ghahramani",
        2016,
        arxiv="1506.02142",
        title="Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning",
    )
    exact_at_rest: ClassVar[bool] = True  # the doctor holds it to that
    p: float | None = None
    num_samples: int = 10
    where: str = "auto"
    channelwise: bool = False
    last: int | None = None

    def __post_init__(self) -> None:
        if self.p is not None:
            checked_rate(self.p, "MCDropout")
        if self.num_samples < 1:
            raise ValueError(f"MCDropout: num_samples must be at least 1, got {self.num_samples}")
        if self.where not in PLACES:
            raise ValueError(f"MCDropout: where must be one of {', '.join(map(repr, PLACES))}; got {self.where!r}")
        if self.last is not None and (self.last < 1 or self.where not in SEVERAL):
            raise ValueError(
                f"MCDropout: last must be at least 1, with one of {', '.join(map(repr, SEVERAL))}; got {self.last} "
                f"with {self.where!r}"
            )

    def __call__(self, network: Network) -> Network:
        """The network with layers that draw num_samples times at prediction."""
        trace = network.trace()
        where = self.resolved(network, trace)
        new = network
        if where == "existing":
            new = self.converted(network, trace)
        elif where == "layers":
            places = before_weights(trace)
            new = self.inserted(network, places) if places else network
        elif where == "activations":
            behind = behind_activations(trace)
            new = self.inserted(network, behind.found, left=behind.left)
        elif where in SEVERAL:
            new = self.inserted(network, inside_blocks(trace) if where == "blocks" else behind_each_convolution(trace))
        if where in ("layers", "head"):
            new = new.appended(self.layer(-1), name="dropout", author="MCDropout")
        return new.declare(num_samples=self.num_samples)

    def resolved(self, network: Network, trace: Trace) -> str:
        """`where`, with "auto" and "blocks_or_activations" decided."""
        if self.where == "blocks_or_activations":
            return "blocks" if inside_blocks(trace) else "activations"
        if self.where != "auto":
            return self.where
        if trace.droppers or any(is_dropout(module) for module in network.modules()):
            return "existing"
        return "blocks" if inside_blocks(trace) else "layers"

    def converted(self, network: Network, trace: Trace) -> Network:
        """The network's own dropouts, in modules and in code, as layers that draw."""
        rates = [float(module.p) for module in network.modules() if is_dropout(module)]  # type: ignore[arg-type]
        all_off = not trace.droppers and not any(rates)
        skipped = tuple(
            (name, ATTENTION)
            for name, module in network.named_modules()
            if isinstance(module, nn.MultiheadAttention) and module.dropout > 0
        )

        def match(name: str, module: nn.Module) -> bool:
            return is_dropout(module) or name in trace.droppers

        def make(module: nn.Module) -> nn.Module:
            if not is_dropout(module):
                return FunctionalDropout(module, self.p)
            own: float = RATE if all_off else module.p  # type: ignore[assignment]
            return DropoutAs(module, own if self.p is None else self.p)

        return network.replace(match, make, within="all", inside=True, author="MCDropout", skipped=skipped)

    def inserted(
        self, network: Network, places: tuple[Place, ...], *, left: tuple[tuple[str, str], ...] = ()
    ) -> Network:
        """New dropout in front of some modules, or behind them."""
        spots = {place.name: place for place in places[-(self.last or 0) :]}
        names: dict[nn.Module, str] = {}

        def match(name: str, module: nn.Module) -> bool:
            names[module] = name
            return name in spots

        def make(module: nn.Module) -> nn.Module:
            place = spots[names[module]]
            return Around(module, **{"after" if place.behind else "before": self.layer(place.channel_axis)})

        return network.replace(match, make, inside=True, author="MCDropout", skipped=left)

    def layer(self, channel_axis: int) -> Dropout:
        """New dropout for channels along an axis."""
        return Dropout(RATE if self.p is None else self.p, channel_axis=channel_axis if self.channelwise else None)
