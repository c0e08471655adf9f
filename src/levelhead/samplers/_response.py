"""Delta-STN's two groups of parameters: the network at its hyper-parameters, and its response to a step from them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from levelhead.forward import Forward, Objective
from levelhead.layers.conditional_weights import ConditionalWeights, linearised
from levelhead.layers.hyper_ranges import GaussianHyper
from levelhead.network import Network
from levelhead.passes import keeping_statistics
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, CannotCompose, Scalar

RESPONSES = ("joint", "apart", "linear")
OWN = ("response.", "embedding.", "bias_response")
NOT_CENTRED = (
    "Alternating(response={response!r}) trains the network at its hyper-parameters apart from its response around "
    "them, which this network does not tell apart; use SelfTuning(centred=True), or leave response='joint'"
)


class Responding:
    """The inner sampler a second time, on the response alone: D, b' and the embedding.

    linear  the response is that of first order: outputs at the present hyper-parameters plus their derivative along the
            drawn step. False: the outputs of the moved weights.
    """

    def __init__(self, inner: Sampler[Any], network: Network, task: Task, run: Run, *, linear: bool) -> None:
        self.inner, self.linear = inner, linear
        own = [p for layer in network.layers(ConditionalWeights) for name, p in layer.named_parameters() if mine(name)]
        places = {id(p) for p in own}
        self.own = [p for p in own if p.requires_grad]
        self.others = [p for p in network.parameters() if p.requires_grad and id(p) not in places]
        with fixed(self.others):
            self.state = inner.init(network, task, run)

    def step(self, objective: Objective, batch: Batch) -> Scalar:
        """One step of the response at drawn hyper-parameters; no statistic moves, they are those of the network."""

        def responding(forward: Forward) -> Scalar:
            with keeping_statistics(forward.network):
                outputs = linear_outputs(forward) if self.linear else forward.outputs
            return objective(forward.given(outputs))

        with fixed(self.others):
            return self.inner.step(self.state, responding, batch)


def check_centred(network: Network, response: str) -> None:
    """Raise CannotCompose unless the network tells its hyper-parameters from a step away from them."""
    if not (isinstance(network.hyper, GaussianHyper) and network.hyper.centred):
        raise CannotCompose(NOT_CENTRED.format(response=response))


def mine(name: str) -> bool:
    """Whether a parameter of a conditional layer belongs to its response."""
    return name.startswith(OWN)


def linear_outputs(forward: Forward) -> Float[Tensor, "row *batch output"]:
    """f + J e: the outputs without a response, and their derivative along it, in one pass of forward mode.

    Layers that draw and the rows' regularisers are at the drawn hyper-parameters. Always in the parameters' own
    precision: torch's convolutions have no forward mode in mixed precision.
    """
    batch = forward.batch
    with linearised(forward.network), torch.autocast(batch.x.device.type, enabled=False):
        dual = forward.network(batch.x, hyper=batch.hyper, per_member=batch.per_member)
        outputs, tangent = forward_ad.unpack_dual(dual)
        return outputs if tangent is None else outputs + tangent


@contextmanager
def fixed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """In here these parameters want no gradient; all of them did before."""
    held = list(parameters)
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
