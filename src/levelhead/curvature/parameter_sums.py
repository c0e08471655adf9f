"""Sums over rows of squared Jacobian entries, one number a parameter: diagonals without any structure assumed."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, vjp, vmap

from levelhead.curvature.outputs import output_curvature
from levelhead.curvature.places import predicted
from levelhead.network import Network
from levelhead.probe import evaluating
from levelhead.tasks.split import Split
from levelhead.types import CannotCompose

BUDGET = 2**26  # numbers in the Jacobians that are held at once: 256 MB in float32

Root = Callable[[Float[Tensor, "batch output"]], Float[Tensor, "batch output column"]]


def curvature_root(network: Network) -> Root:
    """S_n with S_n S_n' = Lambda_n, the curvature of the network's likelihood in the outputs."""

    def root(outputs: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output column"]:
        values, vectors = torch.linalg.eigh(output_curvature(network.likelihood, outputs.double()).dense())
        return (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)).to(outputs)

    return root


def predicted_root(network: Network) -> Root:
    """S_n = I over the outputs that are predicted: all logits, or the means of real targets."""

    def root(outputs: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output column"]:
        return torch.eye(outputs.shape[-1], predicted(network)).to(outputs).expand(len(outputs), -1, -1)

    return root


def squares(network: Network, split: Split, root: Root) -> Float[Tensor, " parameter"]:
    """sum_n sum_c (J_n' S_n)_dc^2 for every parameter d, flat, in float64; zero for frozen ones.

    `curvature_root` gives the diagonal of the generalised Gauss-Newton matrix, `predicted_root` sum_n |J_n[:, d]|^2.
    Clean, in order, in evaluation mode, for any layers that torch can vectorise over.
    Raises CannotCompose for networks of several members, and for outputs a pixel.
    """
    moving = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in moving.items()}
    size = sum(p.numel() for p in moving.values())
    rows = max(1, BUDGET // max(1, size * network.num_outputs))

    def pulled(x: Tensor, columns: Float[Tensor, "output column"]) -> dict[str, Tensor]:
        def outputs(parameters: dict[str, Tensor]) -> Float[Tensor, " output"]:
            return functional_call(network, parameters, (x.unsqueeze(0),))[0, 0]

        back = vjp(outputs, moving)[1]
        return vmap(lambda column: back(column)[0])(columns.mT)

    like = next(network.parameters())
    with evaluating(network), torch.no_grad():
        for batch in split.ordered(min(rows, 500)):
            x = batch.x.to(like)
            outputs = network(x)
            if outputs.ndim != 3 or len(outputs) > 1:
                raise CannotCompose(
                    "Squared Jacobians want one network with one output vector a row, not members or pixels. Choose "
                    "the subnetwork by another rule, such as subset=SWAGVariance()"
                )
            found = vmap(pulled)(x, root(outputs[0]))
            for name, jacobian in found.items():
                total[name] += jacobian.double().square().sum((0, 1))
    return torch.cat(
        [total.get(name, torch.zeros_like(p, dtype=torch.float64)).flatten() for name, p in network.named_parameters()]
    )


def contributions(network: Network, split: Split, prior_precision: float) -> Float[Tensor, " parameter"]:
    """R_d / (h_d + prior_precision): by parameter, the variance that a diagonal Laplace posterior gives the outputs.

    Summed over rows and predicted outputs; R_d = sum_n |J_n[:, d]|^2, h_d the diagonal of the curvature.
    """
    curvature = squares(network, split, curvature_root(network))
    return squares(network, split, predicted_root(network)) / (curvature + prior_precision)
