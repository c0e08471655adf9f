"""How a network's maps end: whether its blocks activate first, and what returns the last map."""

import math
from itertools import count

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levelhead.declared import Membered
from levelhead.layers.places import CONVOLUTIONS, Place
from levelhead.probe import Trace

NORMS = (_BatchNorm, nn.GroupNorm)


def pre_activation(trace: Trace) -> bool:
    """Whether the last norm over pixels reads a whole block's output (a sum, a concatenation) and no convolution's.

    So do the pre-activation residual networks (arXiv 1603.05027) and DenseNets: their blocks end without an activation.
    """
    norms = [i for i, call in enumerate(trace.calls) if isinstance(call.module, NORMS) and _is_map(call.input_shape)]
    if not norms:
        return False
    # a norm of members is taken whole: inside, it reads maps that it has put in another order
    norm = next((i for i in trace.around()[norms[-1]] if isinstance(trace.calls[i].module, Membered)), norms[-1])
    makers = [i for i in range(norm) if trace.calls[i].result == trace.calls[norm].source]
    inner = max(makers, key=lambda i: trace.calls[i].depth, default=None)
    return inner is None or _convolutions(trace.calls[inner].module) > 1


def behind_last_map(trace: Trace) -> tuple[Place, ...]:
    """Behind the largest module that returns the network's last map.

    Nothing where that is the network itself, or a module that is called more than once.
    """
    maps = [i for i, call in enumerate(trace.calls) if _is_map(call.output_shape)]
    if not maps or _is_map(trace.calls[0].output_shape):
        return ()
    last = max(maps, key=lambda i: (_end(trace, i), -trace.calls[i].depth))
    call = trace.calls[last]
    if sum(other.name == call.name for other in trace.calls) > 1:
        return ()
    return (Place(call.name, behind=True, channels=call.output_shape[1]),)


def _end(trace: Trace, i: int) -> int:
    """The first call that began when this one had ended, or the number of calls."""
    return next(j for j in count(i + 1) if j == len(trace.calls) or trace.calls[j].depth <= trace.calls[i].depth)


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(child, CONVOLUTIONS) for child in module.modules())


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and math.prod(shape[2:]) > 1
