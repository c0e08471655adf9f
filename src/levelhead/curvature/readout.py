"""The last layer of a network, seen while it works: what goes into it and what comes out of the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.per_member import PerMember
from levelhead.likelihood import Categorical, Gaussian, Likelihood
from levelhead.network import Network
from levelhead.predictor import Ensemble, Point, Predictor, WeightSamples, noise_of, samples_of
from levelhead.tasks.split import Split
from levelhead.types import CannotCompose

BATCH = 500


def one_network(predictor: Predictor, *, step: str) -> Point:
    """The predictor as one network with one set of weights.

    Raises CannotCompose for anything else, with what to write instead.
    """
    if isinstance(predictor, Point):
        return predictor
    if isinstance(predictor, Ensemble):
        advice = f"put it inside the member: DeepEnsemble(member=Recipe(..., posthoc=({step},)))"
    elif isinstance(predictor, WeightSamples):
        advice = f"the sampler already draws weights: take one that gives a point, such as SGD(), or leave {step} out"
    else:
        advice = f"put it before the other post-hoc steps: posthoc=({step}, ...)"
    raise CannotCompose(
        f"{step} is of one network with one set of weights, and got {type(predictor).__name__}; {advice}"
    )


def check_likelihood(likelihood: Likelihood, *, step: str) -> None:
    """Raise CannotCompose for outputs whose uncertainty no Gaussian over weights is known to give here."""
    if not isinstance(likelihood, Categorical | Gaussian):
        raise CannotCompose(
            f"{step} knows Categorical and Gaussian likelihoods, not {type(likelihood).__name__}. Leave {step} out, "
            "and use deep_ensemble, mc_dropout or nomu for the uncertainty of such targets"
        )


class Reading(NamedTuple):
    """One pass: the network's outputs, and the inputs of the layer that was watched."""

    outputs: Float[Tensor, "row *batch output"]
    inputs: Float[Tensor, "row *batch feature"]


def read(network: Network, layer: nn.Module, x: Float[Tensor, "batch *input"], *, num_samples: int | None) -> Reading:
    """Pass x through `network` and keep the inputs of `layer`, a part of its head, of that pass and its noise."""
    with watched(layer) as seen:
        outputs = network(x, num_samples=num_samples)
    (flat,) = seen
    rows = outputs.shape[0]
    inputs = rearrange(flat, "(row b) ... -> row b ...", row=rows)
    return Reading(outputs, inputs)


def read_noisy(network: Network, layer: nn.Module, x: Float[Tensor, "batch *input"], noise: int | None) -> Reading:
    """`read` as a predictor passes: with the network's own number of samples, under a noise seed."""
    with noise_of(noise, network):
        return read(network, layer, x, num_samples=samples_of(network))


def readings(network: Network, layer: nn.Module, split: Split) -> Iterator[tuple[Reading, Tensor]]:
    """Readings of all rows of a split and their targets, in order, clean, without draws: a row of each is a member."""
    like = next(network.parameters())
    for batch in split.ordered(BATCH):
        batch = batch.to(like.device, like.dtype)
        with (
            torch.no_grad()
        ):  # here and not as a decorator, which would end before the first step of a wrapped generator
            reading = read(network, layer, batch.x, num_samples=None)
        yield reading, batch.y


@contextmanager
def watched(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs of every call of `layer`, in a list that fills."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()


def linear_readout(network: Network) -> nn.Linear:
    """The linear layer that makes the outputs. Raises CannotCompose where the head has none."""
    plain = [m for m in network.head.modules() if isinstance(m, nn.Linear) and type(m).forward is nn.Linear.forward]
    if any(isinstance(m, PerMember) for m in network.head.modules()):
        raise CannotCompose(
            "Laplace(subset='head') fits one last layer, and here every member has a head of its own. Put Laplace() on "
            "recipes without multi_head, mimo and packed_ensemble, and use deep_ensemble for the members"
        )
    if not plain:
        raise CannotCompose(
            f"Laplace(subset='head') needs a linear last layer, and this head is a {type(network.head).__name__}. Let "
            "surgeries leave the head as it is, or put Laplace() on a recipe without them"
        )
    return plain[-1]


def check_linear(reading: Reading, layer: nn.Linear, network: Network) -> None:
    """Raise CannotCompose where the outputs are not what `layer` makes of its inputs."""
    expected = F.linear(reading.inputs, layer.weight, layer.bias)
    if any(isinstance(m, ConditionalWeights) for m in network.head.modules()):
        raise CannotCompose(
            "Laplace(subset='head') fits one last layer, and here hyper-parameters set the head's weights for every "
            "row. Leave Laplace() out, or put it on batch_ensemble(within='features')"
        )
    if expected.shape != reading.outputs.shape or not torch.allclose(expected, reading.outputs, rtol=1e-3, atol=1e-4):
        raise CannotCompose(
            "Laplace(subset='head'): the outputs are not those of the head's last linear layer alone (head: "
            f"{type(network.head).__name__}): members' own factors, or something behind it. Let surgeries leave the "
            "head as it is (batch_ensemble and rank1_bnn: within='features')"
        )


def has_bias(layer: nn.Linear) -> bool:
    """Whether a linear layer has a bias."""
    return layer._parameters["bias"] is not None


def weights(layer: nn.Linear) -> Float[Tensor, "out in"]:
    """theta in float64: the weights, the bias as a last column."""
    theta = layer.weight.detach().double()
    return torch.cat([theta, layer.bias.detach().double()[:, None]], dim=1) if has_bias(layer) else theta


def with_bias(z: Float[Tensor, "*batch feature"], layer: nn.Linear) -> Float[Tensor, "*batch in"]:
    """The features, with a 1 behind them where the layer has a bias."""
    return F.pad(z, (0, 1), value=1.0) if has_bias(layer) else z
