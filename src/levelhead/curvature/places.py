"""Parameters as one flat vector: where each tensor stands in it, which places may be chosen, which ones do anything.

The order is that of `network.named_parameters()`, each tensor row by row; one that is used twice stands there once.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.probe import evaluating
from levelhead.tasks.split import Split

BATCH = 500
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


class Place(NamedTuple):
    """Where a tensor of parameters stands: flat places start to stop."""

    name: str
    start: int
    stop: int
    trainable: bool

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.stop - self.start


def places(network: Network) -> list[Place]:
    """Every tensor of parameters, in order."""
    found, start = [], 0
    for name, parameter in network.named_parameters():
        found.append(Place(name, start, start + parameter.numel(), parameter.requires_grad))
        start += parameter.numel()
    return found


def candidates(network: Network, include: Sequence[str], *, norms: bool = False) -> Int[Tensor, " candidate"]:
    """The flat places of trainable tensors whose name matches a pattern of `include`, normalisation layers on request.

    Raises ValueError where nothing matches.
    """
    normalising = {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if isinstance(module, NORMS)
        for own, _ in module.named_parameters(recurse=False)
    }
    known = places(network)
    chosen = [
        place
        for place in known
        if place.trainable
        and any(fnmatchcase(place.name, pattern) for pattern in include)
        and (norms or place.name not in normalising)
    ]
    if not chosen:
        names = ", ".join(place.name for place in known)
        raise ValueError(f"include: {tuple(include)} matches no trainable parameter to choose from; there are {names}")
    return torch.cat([torch.arange(place.start, place.stop, device=network.device) for place in chosen])


def largest(
    scores: Float[Tensor, " candidate"], among: Int[Tensor, " candidate"], num: int
) -> Int[Tensor, " selected"]:
    """The `num` places with the largest scores, in order of place; of equal scores the first places."""
    order = torch.argsort(scores, descending=True, stable=True)
    return among[order[:num]].sort().values


def predicted(network: Network) -> int:
    """How many outputs, the first ones, a posterior makes uncertain: all, or of real targets the means alone."""
    return network.likelihood.num_targets if isinstance(network.likelihood, Gaussian) else network.num_outputs


def gradients(network: Network, split: Split) -> Iterator[Float[Tensor, " parameter"]]:
    """For each batch the sum over its rows of J_n' v_n, v_n standard normal, flat: zero for frozen parameters.

    J is of the outputs that are `predicted`. Its square estimates sum_n |J_n[:, d]|^2 without bias, from one backward
    pass; it is exactly zero where every Jacobian is. Clean, in order, in evaluation mode. The caller's random stream is
    left alone.
    """
    parameters = list(network.parameters())
    moving = [parameter for parameter in parameters if parameter.requires_grad]
    like = parameters[0]
    with evaluating(network), seeded(0, network.device):  # the seed of a whole pass: it is not left between batches
        for batch in split.ordered(BATCH):
            with torch.enable_grad():
                outputs = network(batch.x.to(like))
                cotangents = torch.randn_like(outputs)
                cotangents[..., predicted(network) :] = 0
                found = torch.autograd.grad(outputs, moving, cotangents, allow_unused=True)
            by_parameter = dict(zip(moving, found, strict=True))
            slopes = (by_parameter.get(parameter) for parameter in parameters)
            yield torch.cat(
                [
                    (torch.zeros_like(parameter) if slope is None else slope.detach()).flatten()
                    for parameter, slope in zip(parameters, slopes, strict=True)
                ]
            )


def alive(network: Network, split: Split) -> Bool[Tensor, " parameter"]:
    """Which parameters move what is `predicted` of some row of the split; others have a Jacobian of exactly zero."""
    found: Tensor | None = None
    for gradient in gradients(network, split):
        found = gradient != 0 if found is None else found | (gradient != 0)
    assert found is not None, "a split has rows"
    return found
