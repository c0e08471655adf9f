"""What a network's first layer sees of the training rows: which layer that is, its patches, and their moments."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Conditional
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.per_member import PerMember
from levelhead.network import Network
from levelhead.passes import still
from levelhead.tasks.split import Split, as_float
from levelhead.training import Run
from levelhead.types import CannotCompose

Weighted: TypeAlias = "nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d"
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NUMBERS_AT_ONCE, MOST_ROWS = 2**21, 1024  # in float64, of what a batch of rows becomes
NONE = (
    "{author}: no linear layer or convolution reads this network's input. Put it on a network with one, or use "
    "gaussian_prior"
)
CONDITIONAL = "{author}: the weights of the first layer depend on hyper-parameters. Use gaussian_prior there"
PARAMETRISED = (
    "{author}: the weight of {name} is computed from others, so it has no prior of its own. Use gaussian_prior"
)


class FirstLayer(NamedTuple):
    """A layer that reads the input, and where to see what it reads.

    name     dotted, of the layer in the network.
    site     of the module whose input is looked at: the layer, or what scales its input for each member.
    numbers  that one row of the batch becomes: places x inputs.
    """

    name: str
    site: str
    numbers: int


def first_layers(network: Network, *, author: str) -> tuple[FirstLayer, ...]:
    """The linear layers and convolutions that read the input: one, its copies for members, or several branches.

    Raises CannotCompose, in the name of `author`, where there is none or its weights are no parameters.
    """
    trace = network.trace()
    around = trace.around()
    calls = [place for place, call in enumerate(trace.calls) if isinstance(call.module, KINDS)]
    if not calls:
        if isinstance(network.head, nn.Linear):
            return (FirstLayer("head", "head", network.head.in_features),)
        raise CannotCompose(NONE.format(author=author))
    first = trace.calls[calls[0]]
    copies = [place for place in around[calls[0]] if isinstance(trace.calls[place].module, PerMember)]
    found = []
    for place in calls:
        call = trace.calls[place]
        holders = [trace.calls[outer] for outer in around[place]]
        if call.source != first.source and not set(copies) & set(around[place]):
            continue
        if any(isinstance(holder.module, Conditional) for holder in holders):
            raise CannotCompose(CONDITIONAL.format(author=author))
        if not isinstance(call.module.weight, nn.Parameter):
            raise CannotCompose(PARAMETRISED.format(author=author, name=call.name))
        scaled = [holder.name for holder in holders if isinstance(holder.module, FastWeights)]
        places = call.output_shape[1:-1] if isinstance(call.module, nn.Linear) else call.output_shape[2:]
        numbers = math.prod(places) * call.module.weight[0].numel()
        found.append(FirstLayer(call.name, scaled[0] if scaled else call.name, numbers))
    return tuple(dict.fromkeys(found))


def patches(layer: Weighted, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "place input"]:
    """What the rows of weight.flatten(1) are multiplied with, one place of one row of the batch a line.

    Of a convolution with its own stride, dilation and padding, channels first as in `F.unfold`; of all its groups.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    padding = layer._reversed_padding_repeated_twice  # also of "same"
    x = F.pad(x, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    sizes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for place, (size, stride, dilation) in enumerate(sizes, start=2):
        window = x.unfold(place, (size - 1) * dilation + 1, stride)
        x = window[..., ::dilation]
    sites = " ".join(f"o{i}" for i in range(len(layer.kernel_size)))
    offsets = sites.replace("o", "k")
    return rearrange(x, f"b c {sites} {offsets} -> (b {sites}) (c {offsets})")


class Moments:
    """Mean and covariance of rows that come in batches, in float64; a constant column has a variance of exactly 0."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: Float[Tensor, "row input"]) -> None:
        """Take more rows in."""
        rows = rows.double()
        if not self.count:
            self.pivot = rows[0].clone()  # near the data, so that no digits are lost; a constant column becomes 0
            self.total = torch.zeros_like(self.pivot)
            self.products = self.pivot.new_zeros(len(self.pivot), len(self.pivot))
        centred = rows - self.pivot
        self.count += len(rows)
        self.total += centred.sum(0)
        self.products += centred.mT @ centred

    @property
    def mean(self) -> Float[Tensor, " input"]:
        """The mean."""
        return self.pivot + self.total / self.count

    @property
    def covariance(self) -> Float[Tensor, "input input"]:
        """The covariance, divided by the number of rows."""
        mean = self.total / self.count
        return self.products / self.count - torch.outer(mean, mean)

    @property
    def with_one(self) -> Float[Tensor, "more more"]:
        """E[z z'] of z = (row, 1), not centred: its null directions are the affine constraints of the rows."""
        whole = torch.cat([self.mean, self.mean.new_ones(1)])
        found = torch.outer(whole, whole)
        found[:-1, :-1] += self.covariance
        return found


def moments_seen(network: Network, layers: Sequence[FirstLayer], split: Split, run: Run) -> dict[str, Moments]:
    """The moments of what each of these layers sees of a split, at rest, in one pass; by name.

    Members see the rows in orders of their own, as they do in training where a layer reads several at once.
    """
    found = {layer.name: Moments() for layer in layers}
    size = max(1, min(MOST_ROWS, NUMBERS_AT_ONCE // max(layer.numbers * network.num_members for layer in layers)))
    like = next(network.parameters())
    with still(network), torch.no_grad(), _watching(network, layers, found):
        for x in _members_rows(network, split, size, run):
            try:
                network(x.to(like), per_member=network.num_members > 1)
            except _SeenAll:
                continue
    return found


def _members_rows(network: Network, split: Split, size: int, run: Run) -> Iterator[Tensor]:
    """Batches of rows for every member, member-major."""
    if network.num_members == 1:
        yield from (batch.x for batch in split.ordered(size))
        return
    members = range(network.num_members)
    orders = [torch.randperm(len(split), generator=run.generator("first layer", k)) for k in members]
    for start in range(0, len(split), size):
        index = torch.cat([order[start : start + size] for order in orders])
        yield as_float(split.x[index.to(split.device)])


class _SeenAll(Exception):
    """Nothing is left to see in this pass."""


@contextmanager
def _watching(network: Network, layers: Sequence[FirstLayer], found: dict[str, Moments]) -> Iterator[None]:
    """While open, passes add what the layers see, and end there."""
    seen: set[str] = set()

    def watch(layer: FirstLayer) -> Any:
        module = network.get_submodule(layer.name)

        def before(site: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[layer.name].add(patches(module, args[0]))  # type: ignore[arg-type]
            seen.add(layer.name)
            if len(seen) == len(layers):
                seen.clear()
                raise _SeenAll

        return before

    handles = [network.get_submodule(layer.site).register_forward_pre_hook(watch(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
