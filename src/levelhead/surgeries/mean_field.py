"""Mean-field variational inference: a Gaussian posterior over every weight, each independent of the others."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.gaussian_weights import ESTIMATORS, KINDS, gaussian_layer
from levelhead.network import Network
from levelhead.probe import Trace
from levelhead.types import Reference

WITHIN = ("all", "features", "head")
OF_ITS_OWN = "a {kind} uses its weight in a way of its own: it stays a point"
NOT_CALLED = "its weight is used without calling it, or not at all: it stays a point"
ANSWERS = "it turns hyper-parameters into weights and is no weight of the network: it stays a point"
CLASSES = tuple(KINDS)


@dataclass(frozen=True)
class MeanField:
    """q(w) = prod_i N(w_i; mean_i, softplus(rho_i)^2) for the weights and biases of linear layers and convolutions.

    Put the objective `elbo` behind it, which holds the prior: without it the standard deviations shrink to nothing, as
    nothing but the likelihood pulls on them. The network's own weights are the first means; eval() computes with the
    means, and a predictor draws num_samples sets of weights, each one function for all rows. Adam learns the standard
    deviations; plain SGD hardly moves them. The weights have no weight decay, for the prior takes its place.

    estimator    how training draws: "flipout" (arXiv 1803.04386), exact and nearly uncorrelated between rows; "local"
                 (arXiv 1506.02557), the least noise, but it draws the pixels of a convolution's outputs independently;
                 "shared", one draw for the batch. Mean and variance of each output are the same (tests hold them).
    init_scale   first standard deviations, as a share of the root mean square of each layer's weights.
    num_samples  sets of weights at prediction.
    within       "all"; "head": the last layer alone, where all draws share one pass through the features; "features".

    Norm layers and other parameters stay points. BatchNorm is kept, with statistics of drawn activations; Ovadia et al.
    (arXiv 1906.02530) took it out of their variational ResNet and used SELU.
    Raises NoLayerReplaced without such layers.

    Graves 2011; Blundell et al., arXiv 1505.05424.
    """

    reference: ClassVar[Reference] = Reference(
        "Blundell, Cornebise, Kavukcuoglu and Wierstra",
        2015,
        arxiv="1505.05424",
        title="Weight Uncertainty in Neural Networks",
    )
    exact_at_rest: ClassVar[bool] = True  # the doctor holds it to that
    estimator: str = "flipout"
    init_scale: float = 0.1
    num_samples: int = 10
    within: str = "all"

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"MeanField: estimator must be one of {', '.join(map(repr, ESTIMATORS))}; got {self.estimator!r}"
            )
        if not self.init_scale > 0:
            raise ValueError(f"MeanField: init_scale must be positive, got {self.init_scale}")
        if self.num_samples < 1:
            raise ValueError(f"MeanField: num_samples must be at least 1, got {self.num_samples}")
        if self.within not in WITHIN:
            raise ValueError(f"MeanField: within must be one of {', '.join(map(repr, WITHIN))}; got {self.within!r}")

    def __call__(self, network: Network) -> Network:
        """The network with a posterior over the weights of its layers."""
        called, skipped = _found(network, network.trace()) if self.within != "head" else (set(), ())
        answering = _answering(network)

        def match(name: str, module: nn.Module) -> bool:
            chosen = name in called or name.partition(".")[0] == "head"
            return type(module) in KINDS and chosen and not name.startswith(answering)

        def make(module: nn.Module) -> nn.Module:
            return gaussian_layer(module, estimator=self.estimator, init_scale=self.init_scale)  # type: ignore[arg-type]

        new = network.replace(match, make, within=self.within, author="MeanField", skipped=skipped)
        return new.declare(num_samples=self.num_samples)


def _found(network: Network, trace: Trace) -> tuple[set[str], tuple[tuple[str, str], ...]]:
    """Names of the features' layers that can have a posterior; the others, with the reason."""
    called = {call.name for call in trace.calls}
    answering = _answering(network)
    skipped = []
    for name, module in network.features.named_modules(prefix="features"):
        if isinstance(module, CLASSES):
            if name.startswith(answering):
                skipped.append((name, ANSWERS))
            elif type(module) not in KINDS:
                skipped.append((name, OF_ITS_OWN.format(kind=type(module).__name__)))
            elif name not in called:
                skipped.append((name, NOT_CALLED))
    return called, tuple(skipped)


def _answering(network: Network) -> tuple[str, ...]:
    """Where layers that read hyper-parameters make their weights of them: tiny numbers, of which no prior knows."""
    return tuple(
        f"{name}.embedding" for name, layer in network.named_modules() if isinstance(layer, ConditionalWeights)
    )
