"""A network whose layers depend on hyper-parameters: which there are, by groups of layers, and where they act."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levelhead.declared import Membered
from levelhead.layers.around import Around
from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.fast_weights import LINEAR
from levelhead.layers.hyper_ranges import HyperRange, Tunable
from levelhead.layers.member_layers import called_layers
from levelhead.layers.per_member import PerMember
from levelhead.layers.tuned_dropout import TunedDropout
from levelhead.network import Network
from levelhead.types import CannotCompose

GROUPS = ("stage", "layer", "model")
WHERE = ("head", "layers")
DROPOUT, SMOOTHING = "dropout", "label_smoothing"
Range = tuple[float, float] | None


class Regularisers(NamedTuple):
    """What is tuned, each with the range that it may take; None: not tuned.

    l2               coefficients of |weight|^2 / N. groups: one for each "stage" of the features, for each "layer", or
                     for the whole "model"; the head's weight and bias have their own but for "model".
    dropout          one rate. where: before the "head", or before all "layers" but the first.
    label_smoothing  one rate.
    """

    l2: Range
    groups: str
    dropout: Range
    where: str
    label_smoothing: Range


def conditioned(
    network: Network,
    tuned: Regularisers,
    *,
    author: str,
    num_members: int,
    hyper: Callable[[Sequence[HyperRange]], Tunable],
    layer: Callable[..., ConditionalWeights],
    per_member_norm: bool,
) -> Network:
    """The network with conditional weights in every linear layer and convolution, the head included.

    hyper  ranges -> their distributions.   layer  (module, number of hyper-parameters, kernel=, bias_of=) -> its layer.

    Raises CannotCompose on a network that has hyper-parameters, or members in every such layer, already.
    """
    if network.hyper is not None:
        raise CannotCompose(f"{author}: the network has hyper-parameters already; put all that is tuned in one surgery")
    called, skipped = called_layers(network)
    owned = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, Membered))
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, LINEAR) and not name.startswith(owned) and (name in called or in_head(name))
    ]
    if not names:
        raise CannotCompose(
            f"{author}: every linear layer and convolution has members or slots of its own already; put it before the "
            "surgery that gives them, or leave that out"
        )
    places = {name: (group_of(name, tuned.groups), group_of(name, tuned.groups, bias=True)) for name in names}
    ranges = declared_ranges(tuned, [group for pair in places.values() for group in pair])
    found = {r.name: place for place, r in enumerate(ranges)}
    first = names[0]

    def match(name: str, module: nn.Module) -> bool:
        norm = per_member_norm and isinstance(module, _BatchNorm) and name in called
        if name in places or norm:
            turned.append(name)
        return name in places or norm

    def make(module: nn.Module) -> nn.Module:
        name = turned[-1]
        if isinstance(module, _BatchNorm):
            return PerMember(module, num_members)
        kernel, bias = (found.get(group) for group in places[name])
        made = layer(module, len(ranges), kernel=kernel, bias_of=bias)
        drops = tuned.dropout is not None and tuned.where == "layers" and name != first and not in_head(name)
        return Around(made, before=TunedDropout(num_members, found[DROPOUT])) if drops else made

    turned: list[str] = []
    ready = network.copy().declare(num_members=num_members)
    somewhere = next(ready.parameters())
    ready.hyper = hyper(ranges).to(somewhere.device, somewhere.dtype)
    ready.hyper.train(ready.training)
    new = ready.replace(match, make, within="all", author=author, skipped=skipped)
    if tuned.dropout is None:
        return new
    return new.appended(TunedDropout(num_members, found[DROPOUT]), name="tuned_dropout", author=author)


def in_head(name: str) -> bool:
    """Whether a dotted name is in the head."""
    return name.partition(".")[0] == "head"


def group_of(name: str, groups: str, *, bias: bool = False) -> str:
    """Name of the L2 coefficient of a layer's weight or bias."""
    if groups == "model":
        return "l2"
    if in_head(name):
        return "l2.head.bias" if bias else "l2.head"
    place = name.removeprefix("features.")
    return f"l2.{place if groups == 'layer' else place.partition('.')[0]}"


def declared_ranges(tuned: Regularisers, groups: Sequence[str]) -> list[HyperRange]:
    """All hyper-parameters, in the order of the network."""
    found = [] if tuned.l2 is None else [HyperRange(group, *tuned.l2) for group in dict.fromkeys(groups)]
    for name, bounds in ((DROPOUT, tuned.dropout), (SMOOTHING, tuned.label_smoothing)):
        found += [] if bounds is None else [HyperRange(name, *bounds)]
    return found


def check_ranges(spec: str, tuned: Regularisers) -> None:
    """Raise ValueError, in the name of a spec, for ranges and words that make no sense."""
    for name, value, known in (("groups", tuned.groups, GROUPS), ("dropout_where", tuned.where, WHERE)):
        if value not in known:
            raise ValueError(f"{spec}: {name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    for name, bounds, top in (
        ("l2_range", tuned.l2, float("inf")),
        ("dropout_range", tuned.dropout, 1.0),
        ("label_smoothing_range", tuned.label_smoothing, 1.0),
    ):
        if bounds is not None and not 0 < bounds[0] < bounds[1] < top:
            raise ValueError(f"{spec}: {name} wants 0 < low < high < {top:g}, or None; got {bounds}")
    if tuned.l2 is tuned.dropout is tuned.label_smoothing is None:
        raise ValueError(f"{spec}: nothing is tuned; give l2_range, dropout_range or label_smoothing_range")
