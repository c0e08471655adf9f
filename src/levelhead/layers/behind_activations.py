"""Where dropout stands in networks without residual blocks: behind convolutions, or behind what activates them."""

from collections import Counter
from typing import NamedTuple

from torch import nn

from levelhead.declared import Membered
from levelhead.layers.map_ends import NORMS
from levelhead.layers.places import CONVOLUTIONS, Place
from levelhead.probe import Call, Trace

# f(a x) = a f(x) for a >= 0: a mask in front of these is the same mask behind them.
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.PReLU)
NO_MODULE = "what activates it is no module, so there is nothing to stand behind"
SHARED = "{name} activates it and other maps too, and is no ReLU: dropout can stand neither in front of it nor behind"


class Behind(NamedTuple):
    """Spots behind modules, and the convolutions that were left, with the reason."""

    found: tuple[Place, ...]
    left: tuple[tuple[str, str], ...]


def behind_each_convolution(trace: Trace) -> tuple[Place, ...]:
    """Behind every convolution (behind the layer of members that holds it)."""
    return tuple(dict.fromkeys(_place(call) for call in _convolved(trace)))


def behind_activations(trace: Trace) -> Behind:
    """Behind the activation of every convolution that has one, a norm between them or not.

    Where a module activates other maps too (one `relu` for a whole block), behind what it activates: the same thing for
    a ReLU.
    """
    times = Counter(call.name for call in trace.calls)
    found: list[Place] = []
    left: list[tuple[str, str]] = []
    for convolution in _convolved(trace):
        normed = _reader(trace, convolution, NORMS) or convolution
        active = _activation(trace, normed)
        if active is None:
            left.append((convolution.name, NO_MODULE))
        elif times[active.name] == 1:
            found.append(_place(active))
        elif isinstance(active.module, HOMOGENEOUS):
            found.append(_place(normed))
        else:
            left.append((convolution.name, SHARED.format(name=active.name)))
    return Behind(tuple(dict.fromkeys(found)), tuple(left))


def _convolved(trace: Trace) -> list[Call]:
    """The calls of convolutions over maps; of the layers of members that hold them."""
    around = trace.around()
    found = []
    for i, call in enumerate(trace.calls):
        if isinstance(call.module, CONVOLUTIONS) and len(call.output_shape) > 2:
            whole = (trace.calls[outer] for outer in around[i] if isinstance(trace.calls[outer].module, Membered))
            found.append(next(whole, call))
    return found


def _reader(trace: Trace, call: Call, kinds: tuple[type[nn.Module], ...]) -> Call | None:
    """The module of some kinds that reads what a call returned."""
    return next((c for c in trace.calls if c.source == call.result and isinstance(c.module, kinds)), None)


def _activation(trace: Trace, call: Call) -> Call | None:
    """The activation module that reads what a call returned."""
    readers = (c for c in trace.calls if c.source == call.result and c.is_leaf)
    return next((c for c in readers if type(c.module).__module__ == nn.ReLU.__module__), None)


def _place(call: Call) -> Place:
    return Place(call.name, behind=True, channels=call.output_shape[1])
