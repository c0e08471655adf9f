"""A network seen while it works: what its layers are given, and what comes back to them from the outputs.

One forward pass, then one backward pass to the layers' outputs for every column of cotangents; weights get no gradient
and no Jacobian of an example is built. A tensor that is used several times is summed over its uses.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from levelhead.curvature.places import Place, places
from levelhead.curvature.rows import Rows, joined
from levelhead.curvature.uses import Use, uses
from levelhead.network import Network
from levelhead.passes import still
from levelhead.types import CannotCompose


class Watch(NamedTuple):
    """A tensor to be watched: where it stands in the network's flat vector, and the layers that use it."""

    place: Place
    users: tuple[tuple[nn.Module, Use], ...]
    tensor: nn.Parameter

    @property
    def block(self) -> tuple[int, int, int]:
        """Its size as a block (group, out, in)."""
        group, out, ins = self.users[0][1].block(self.tensor).shape
        return group, out, ins

    def as_block(self, theta: Shaped[Tensor, "*b flat"]) -> Shaped[Tensor, "*b group out in"]:
        """Numbers in the tensor's own order, as a block."""
        order = self.users[0][1].block(torch.arange(self.place.size, device=theta.device).reshape(self.tensor.shape))
        return theta[..., order]

    def as_flat(self, block: Shaped[Tensor, "*b group out in"]) -> Shaped[Tensor, "*b flat"]:
        """A block in the tensor's own order."""
        return self.users[0][1].tensor(block, self.tensor)


class Call(NamedTuple):
    """One call of a layer."""

    layer: nn.Module
    inputs: Tensor
    edge: GradientEdge
    size: torch.Size


class Pass(NamedTuple):
    """One forward pass that can be gone back."""

    outputs: Float[Tensor, "batch output"]
    calls: tuple[Call, ...]
    watches: tuple[Watch, ...]

    def back(
        self, cotangents: Float[Tensor, "k batch output"], *, differentiable: bool = False
    ) -> Iterator[tuple[Watch, Rows]]:
        """The rows of every watched tensor, for some columns of cotangents, in the order of the parameters.

        differentiable  whether what comes back may be differentiated in turn.
        """
        returned = self._returned(cotangents, differentiable=differentiable)
        for watch in self.watches:
            parts = [
                use.rows(call.inputs, b)
                for layer, use in watch.users
                for call, b in zip(self.calls, returned, strict=True)
                if call.layer is layer
            ]
            yield watch, joined(parts) if parts else self._unused(watch, len(cotangents))

    def _returned(
        self, cotangents: Float[Tensor, "k batch output"], *, differentiable: bool
    ) -> list[Float[Tensor, "k ..."]]:
        """The cotangents of every call's output, of all columns.

        The columns go back together where torch can vectorise every step, which spares copies, and else in turn.
        """
        edges = [call.edge for call in self.calls]
        found: Sequence[Tensor | None]
        try:
            found = torch.autograd.grad(
                self.outputs,
                edges,
                cotangents,
                retain_graph=True,
                create_graph=differentiable,
                allow_unused=True,
                is_grads_batched=True,
            )
        except RuntimeError:  # a step that vmap does not know
            columns = [
                torch.autograd.grad(
                    self.outputs, edges, column, retain_graph=True, create_graph=differentiable, allow_unused=True
                )
                for column in cotangents
            ]
            stacked = zip(*columns, strict=True)
            found = [None if parts[0] is None else torch.stack(parts) for parts in stacked]
        pairs = zip(self.calls, found, strict=True)
        return [cotangents.new_zeros(len(cotangents), *c.size) if b is None else b for c, b in pairs]

    def _unused(self, watch: Watch, columns: int) -> Rows:
        """The rows of a tensor that took no part in the pass."""
        group, out, ins = watch.block
        rows, like = len(self.outputs), self.outputs
        return Rows(like.new_zeros(group, rows, 1, ins), like.new_zeros(columns, group, rows, 1, out))


def watched(network: Network, names: Sequence[str]) -> tuple[Watch, ...]:
    """The tensors of these names, in order, with the layers that use them.

    Raises CannotCompose for parameters of layers that are not known, with their names.
    """
    users: dict[nn.Parameter, list[tuple[nn.Module, Use]]] = {}
    for layer in network.modules():
        for name, use in uses(layer).items():
            users.setdefault(layer._parameters[name], []).append((layer, use))  # type: ignore[arg-type]
    wanted = set(names)
    tensors = dict(network.named_parameters())
    found = [
        Watch(p, tuple(users.get(tensors[p.name], ())), tensors[p.name]) for p in places(network) if p.name in wanted
    ]
    unknown = [watch.place.name for watch in found if len({use.axes for _, use in watch.users}) != 1]
    if unknown:
        raise CannotCompose(
            f"The curvature of {', '.join(unknown[:5])}{' and others' if len(unknown) > 5 else ''} is not known: these "
            "belong to no linear, convolution, normalisation or embedding layer, or to two of different kinds. Leave "
            "them out (subset=('features.stage1*', ...) takes patterns of names), or write subset='head'"
        )
    return tuple(found)


@contextmanager
def passing(network: Network, watches: Sequence[Watch], *, differentiable: bool) -> Iterator[Callable[[Tensor], Pass]]:
    """Within: a function from inputs to a `Pass`. The network is at rest, and put back afterwards.

    differentiable  whether the pass may be differentiated in its inputs.

    The pass raises CannotCompose where the network has several members, or outputs for every pixel or token.
    """
    layers = {layer for watch in watches for layer, _ in watch.users}
    calls: list[Call] = []

    def after(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (inputs,) = args
        if not differentiable:
            inputs = inputs.detach()
        if output.requires_grad:
            calls.append(Call(layer, inputs, get_gradient_edge(output), output.shape))
            return output
        start = output.detach().requires_grad_()
        calls.append(Call(layer, inputs, get_gradient_edge(start), output.shape))
        return start.clone()  # what comes behind may change it in place, which a start must not be

    def run(x: Tensor) -> Pass:
        calls.clear()
        with torch.enable_grad():
            outputs = network(x if differentiable else x.detach())
            if len(outputs) != 1 or outputs.ndim != 3:
                raise CannotCompose(
                    "Curvature of more than the last layer is there for one network with one output a row, and "
                    f"the outputs here are {tuple(outputs.shape)}. Write subset='head', which takes members and "
                    "pixels; for members with weights of their own use deep_ensemble"
                )
            return Pass(outputs[0], tuple(calls), tuple(watches))

    with still(network):
        hooks = [layer.register_forward_hook(after) for layer in layers]
        try:
            yield run
        finally:
            for hook in hooks:
                hook.remove()


def check_uses(network: Network, watches: Sequence[Watch], x: Float[Tensor, "batch *input"]) -> None:
    """Compare the rows' gradients on two examples with those by plain differentiation.

    Raises CannotCompose where they differ: a weight is used outside of its layer, or rows of a batch mix.
    """
    cotangent = None
    sums: list[Tensor] = []
    with passing(network, watches, differentiable=False) as run:
        gone = run(x[:2])
        cotangent = torch.linspace(-1, 1, gone.outputs.numel()).to(gone.outputs).reshape(1, *gone.outputs.shape)
        for watch, rows in gone.back(cotangent):
            if rows.inputs.shape[1] != len(gone.outputs):
                raise CannotCompose(
                    f"{watch.place.name} is used on {rows.inputs.shape[1]} rows for {len(gone.outputs)} examples; "
                    "leave its layer out of the subset"
                )
            sums.append(watch.as_flat(rows.gradients()[0]))
    required = [watch.tensor.requires_grad for watch in watches]
    with still(network), torch.enable_grad():
        try:
            for watch in watches:
                watch.tensor.requires_grad_(True)
            for n in range(len(gone.outputs)):
                outputs = network(x[n : n + 1])[0]
                plain = torch.autograd.grad(
                    outputs,
                    [w.tensor for w in watches],
                    cotangent[0, n : n + 1],
                    allow_unused=True,
                    materialize_grads=True,
                )
                for watch, gradient, found in zip(watches, plain, sums, strict=True):
                    expected = gradient.flatten()
                    slack = 1e-4 * (1 + float(expected.abs().max()))
                    if not torch.allclose(found[n], expected, rtol=1e-2, atol=slack):
                        raise CannotCompose(
                            f"{watch.place.name} acts on the outputs not only through its layer, or mixes the rows of "
                            "a batch, so its gradients cannot be told apart by example. Leave it out of the subset"
                        )
        finally:
            for watch, needed in zip(watches, required, strict=True):
                watch.tensor.requires_grad_(needed)
