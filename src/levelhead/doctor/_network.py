"""Checks of a network as it is, before any surgery."""

import copy
from collections import Counter
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.doctor._diagnosis import Findings, counted, listed
from levelhead.evaluations.cost import multiply_adds, num_parameters
from levelhead.layers.normalise import Normalise
from levelhead.network import Network
from levelhead.predictor import Point
from levelhead.probe import evaluating

TOLERANCE = 1e-3  # of the outputs' size: float32 sums in another order differ by far less
NUDGE = 0.02  # of weights, in units of the weights
NORMS = nn.modules.batchnorm._BatchNorm
DRAWS = "In forward, write F.dropout(x, p, self.training): without the last argument it draws in eval() too"
WRITES = "forward writes to its input: every later pass over the same rows sees something else"
NOT_IN_PLACE = "Write x = x - mean, not x -= mean; inplace=True only behind a layer of the network's own"
STATES = "Register it: self.register_buffer(name, tensor), or nn.Parameter; plain attributes are not saved or moved"


class Example(NamedTuple):
    """Rows to examine with, and where they come from."""

    x: Float[Tensor, "batch *input"]
    source: str


def examine_network(network: Network, example: Example) -> Findings:
    """All checks of a network; the first that fails altogether ends them."""
    found, x = Findings("network"), example.x
    shape = "Give a task with inputs of the network's shape (task=..., --task), or mend its forward"
    if not found.attempt("runs", lambda: runs(network, example, found), shape):
        return found
    head(network, found)
    steps = [repeats, alone, statistics, input_kept, gradients, dropout, normalised, state, cost]
    for check in steps:
        words = check.__name__.replace("_", " ")
        found.attempt(words, lambda check=check: check(network, x, found), "See the error; mend the module's code")  # type: ignore[misc]
    return found


def runs(network: Network, example: Example, found: Findings) -> None:
    """It turns rows into finite outputs of the right shape."""
    outputs = predicted(network, example.x)
    wanted = (network.num_members, len(example.x), network.num_outputs)
    right = outputs.shape[:2] == wanted[:2] and outputs.shape[-1] == wanted[-1]
    found.judge(
        right and bool(outputs.isfinite().all()),
        "runs",
        f"{example.source} of {tuple(example.x.shape[1:])} give outputs of {tuple(outputs.shape)}",
        f"outputs of shape {tuple(outputs.shape)}, finite: {bool(outputs.isfinite().all())}; wants {wanted}",
        "Return one finite number for each class (or mean and raw variance for each target)",
    )


def head(network: Network, found: Findings) -> None:
    """What the last layer is, and what stands before it."""
    kinds = Counter(type(call.module).__name__ for call in network.trace().calls if call.is_leaf)
    found.note("head", f"{type(network.head).__name__}: {network.width} features to {network.num_outputs} outputs")
    found.note("layers", ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()))


def repeats(network: Network, x: Tensor, found: Findings) -> None:
    """eval() draws nothing."""
    first, second = predicted(network, x), predicted(network, x)
    found.judge(
        torch.equal(first, second),
        "eval repeats",
        "the same rows give the same outputs, to the bit",
        f"two predictions of the same rows differ by up to {largest(first - second):.2g}: something draws in eval()",
        DRAWS,
    )


def alone(network: Network, x: Tensor, found: Findings) -> None:
    """A row's outputs do not depend on the other rows."""
    together, single = predicted(network, x)[:, :1], predicted(network, x[:1])
    off = largest(together - single) / max(largest(together), 1e-12)
    found.judge(
        off <= TOLERANCE,
        "rows apart",
        "a row is predicted alike alone and in company",
        f"a row's outputs move by {off:.1%} of their size with its company: {listed(unruly(network)) or 'unknown'}",
        "At prediction BatchNorm must use running statistics: track_running_stats=True, and let eval() reach it",
    )


def statistics(network: Network, x: Tensor, found: Findings) -> None:
    """Prediction moves no buffer, and eval() reaches every module."""
    before = {name: b.clone() for name, b in network.named_buffers()}
    predicted(network, x)
    moved = [name for name, b in network.named_buffers() if not torch.equal(b, before[name])]
    found.judge(
        not moved,
        "statistics rest",
        f"prediction leaves all {len(before)} buffers alone",
        f"prediction moves {listed(moved)}",
        "Something keeps training mode at prediction; let train(mode) pass the mode on to every child",
    )
    with evaluating(network):
        deaf = [name for name, module in network.named_modules() if module.training]
    if deaf:
        found.fail("eval is heard", f"{listed(deaf)} stay in training mode after eval()", "Do not override train()")


def input_kept(network: Network, x: Tensor, found: Findings) -> None:
    """The caller's rows are not written to."""
    before = x.clone()
    predicted(network, x)
    kept = torch.equal(x, before)
    x.copy_(before)
    inplace = [name for name, module in network.named_modules() if getattr(module, "inplace", False)]
    text = "the input is not written to" + (f"; {len(inplace)} layers work in place, which is fine" if inplace else "")
    found.judge(
        kept,
        "input kept",
        text,
        WRITES,
        NOT_IN_PLACE,
    )


def gradients(network: Network, x: Tensor, found: Findings) -> None:
    """A backward pass reaches the input and every parameter."""
    idle, reached = ungraded(network, x)
    found.judge(
        reached,
        "input gradient",
        "gradients reach the input, so attacks and smoothness terms work",
        "no gradient reaches the input: attacks, VAT and adversarial training cannot see through the network",
        "Look for .detach(), .data, torch.no_grad(), rounding or .numpy() in forward",
    )
    if idle:
        text = f"no gradient reaches {listed(idle)}"
        found.warn(
            "gradients", text, "Remove what is not used, or freeze it (requires_grad_(False)): it would only decay"
        )
    else:
        found.note("gradients", f"reach all {counted(len(moving(network)), 'parameter')}")


def dropout(network: Network, x: Tensor, found: Findings) -> None:
    """Dropout that is called as a function."""
    trace = network.trace()
    if trace.functional_dropout:
        rates = ", ".join(f"{rate:g}" for rate in sorted(set(trace.functional_dropout)))
        found.note(
            "dropout calls", f"in the code of {listed(trace.droppers)}, rates {rates}: MCDropout() draws them too"
        )


def normalised(network: Network, x: Tensor, found: Findings) -> None:
    """Inputs are raw, so a layer must normalise them."""
    if network.layers(Normalise):
        found.note("raw inputs", "the first layer normalises by the training data's statistics")
    else:
        found.warn(
            "raw inputs",
            "no layer normalises: inputs arrive raw, pixels in [0, 1] or features in their own units",
            "Use the Factory backbone with normalise=True, unless the module normalises by itself",
        )


def state(network: Network, x: Tensor, found: Findings) -> None:
    """The state dict is the whole state."""
    loose = loose_tensors(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1)
    twin.load_state_dict(network.state_dict())
    same = torch.equal(predicted(twin, x), predicted(network, x))
    found.judge(
        same and not loose,
        "state dict",
        f"{len(network.state_dict())} tensors hold everything",
        f"tensors outside of it: {listed(loose)}" if loose else "a copy with the same state predicts something else",
        STATES,
    )


def cost(network: Network, x: Tensor, found: Findings) -> None:
    """Size and arithmetic."""
    point = Point(copy.deepcopy(network))
    found.note("cost", f"{num_parameters(point):,} parameters, {multiply_adds(point, x):,.0f} multiply-adds a row")


@torch.no_grad()
def predicted(network: Network, x: Tensor, *, num_samples: int | None = None) -> Float[Tensor, "row *batch output"]:
    """Outputs in eval, the network's mode kept."""
    with evaluating(network):
        return network(x, num_samples=num_samples)


def ungraded(network: Network, x: Tensor) -> tuple[list[str], bool]:
    """Names of the parameters that a training pass gives no gradient, and whether the input gets one.

    The scalar is a random mixture of the outputs: whatever a loss reads, it reads. The weights are moved a little:
    where a branch starts at zero (the last norm of a residual block), only its own scale would get a gradient.
    """
    twin = copy.deepcopy(network).train()
    twin.zero_grad(set_to_none=True)
    with torch.no_grad():
        for parameter in moving(twin).values():
            parameter.add_(NUDGE * torch.randn_like(parameter))
    point = x.detach().clone().requires_grad_(True)
    outputs = twin(point)
    (outputs * torch.randn_like(outputs)).sum().backward()
    idle = [name for name, p in moving(twin).items() if p.grad is None or not bool(p.grad.any())]
    return idle, point.grad is not None and bool(point.grad.any())


def moving(network: Network) -> dict[str, nn.Parameter]:
    """The parameters that a sampler would move."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def loose_tensors(network: Network) -> list[str]:
    """Tensors that are attributes of a module and neither parameters nor buffers."""
    found = []
    for name, module in network.named_modules():
        found += [f"{name}.{key}" for key, value in vars(module).items() if isinstance(value, Tensor)]
    return found


def unruly(network: Network) -> list[str]:
    """Normalisation layers that see their batch at prediction."""
    with evaluating(network):
        norms = [(name, module) for name, module in network.named_modules() if isinstance(module, NORMS)]
        return [name for name, module in norms if module.training or module.running_mean is None]


def largest(tensor: Tensor) -> float:
    """The largest absolute value."""
    return float(tensor.detach().abs().max())
