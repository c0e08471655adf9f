"""Fitting models that others wrote to our signatures."""

from collections import OrderedDict
from collections.abc import Sequence
from statistics import fmean

from torch import nn

from levelhead.layers.normalise import Normalise
from levelhead.likelihood import Signature
from levelhead.network import Network


def normalised(
    model: nn.Module,
    *,
    head: str,
    signature: Signature,
    moments: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Network:
    """A network of stages normalise and model.

    head     dotted name, in the model, of its last linear layer.
    moments  (mean, std) that the model's weights expect, one number a channel; averaged where the inputs have another
             number of channels. None for the signature's.
    """
    mean, std = (signature.mean, signature.std) if moments is None else moments
    if moments is not None and len(mean) != signature.input_shape[0]:
        mean, std = (fmean(mean),), (fmean(std),)
    stages = nn.Sequential(OrderedDict(normalise=Normalise(tuple(mean), tuple(std)), model=model))
    return Network.wrap(stages, head=f"model.{head}", signature=signature)


def dotted_name(model: nn.Module, module: nn.Module) -> str:
    """Where `module` is in `model`. Raises ValueError where it is not."""
    for name, child in model.named_modules():
        if child is module:
            return name
    raise ValueError(f"the {type(module).__name__} that should be the head is not part of the {type(model).__name__}")


def last_linear(model: nn.Module, *, spec: str) -> str:
    """Dotted name of the last linear layer. Raises ValueError, in the name of `spec`, where there is none."""
    names = [name for name, child in model.named_modules() if isinstance(child, nn.Linear)]
    if not names:
        raise ValueError(f"{spec}: the {type(model).__name__} has no linear layer that could be the head")
    return names[-1]


def exchange(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at a dotted name of `model`, in place: for a model that was made a moment ago."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)
