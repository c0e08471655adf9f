"""Anybody's network, from `module:function`."""

import importlib
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from levelhead.layers.foreign import normalised
from levelhead.likelihood import Signature
from levelhead.network import Network


def linear(*, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """What a target looks like: a function (or class) that returns a module. This one is logistic regression."""
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(math.prod(input_shape), num_outputs)))


@dataclass(frozen=True)
class Factory:
    """The network that a function of yours makes.

    target     "package.module:function"; a class does too. It is called with those of the following that its parameters
               name: signature, input_shape, num_outputs, num_classes (the same number), in_channels (input_shape[0]).
               It returns an nn.Module that maps inputs to (batch, num_outputs), logits for classes; or a Network.
    head       dotted name of the module's last linear layer; not read for a Network.
    options    further arguments: a mapping or pairs.
    normalise  put a layer before the module that normalises by the training data's statistics; False where the module
               does so itself. Inputs are raw: pixels in [0, 1], features in their own units.

    Initialisation must draw from torch's global generator. Raises ValueError for a target that cannot be found,
    TypeError for a target that returns something else.
    """

    target: str = "levelhead.backbones.factory:linear"
    head: str = "fc"
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    normalise: bool = True

    def __post_init__(self) -> None:
        module, colon, function = self.target.partition(":")
        if not (module and colon and function):
            raise ValueError(f'Factory: target must read "package.module:function", got {self.target!r}')
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))

    def function(self) -> Callable[..., Any]:
        """The function that `target` names."""
        module, _, path = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"Factory: target {self.target!r} cannot be found ({error}); is its folder on PYTHONPATH?"
            ) from error
        return found

    def module(self, signature: Signature) -> nn.Module:
        """What the target returns for a signature, as it is."""
        function = self.function()
        offered = {
            "signature": signature,
            "input_shape": signature.input_shape,
            "num_outputs": signature.num_outputs,
            "num_classes": signature.num_outputs,
            "in_channels": signature.input_shape[0],
        }
        wanted = inspect.signature(function).parameters
        made = function(**{name: value for name, value in offered.items() if name in wanted} | dict(self.options))
        if not isinstance(made, nn.Module):
            raise TypeError(
                f"Factory: {self.target} wants to return an nn.Module or a Network, got {type(made).__name__}"
            )
        return made

    def network(self, module: nn.Module, head: str, signature: Signature) -> Network:
        """A module of the target's as a network."""
        if not self.normalise:
            return Network.wrap(module, head=head, signature=signature)
        return normalised(module, head=head, signature=signature)

    def __call__(self, signature: Signature) -> Network:
        """A network of two stages, normalise and model; or the target's own Network."""
        made = self.module(signature)
        return made if isinstance(made, Network) else self.network(made, self.head, signature)
