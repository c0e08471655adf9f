"""How tensors lie in memory, and how a new layer is brought where an old one was."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def channels_last(module: nn.Module) -> None:
    """Lay out the weights of image convolutions with channels innermost: a third faster on CPU, and on GPU in half."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = channels_innermost(parameter.data)


def channels_innermost(kernels: Float[Tensor, "out channel h w"]) -> Float[Tensor, "out channel h w"]:
    """The same kernels with channels innermost, in their strides too where there is one channel.

    There contiguous() changes nothing, but a convolution goes by the strides: grey LeNets would train a quarter slower.
    """
    return torch.empty_like(kernels, memory_format=torch.channels_last).copy_(kernels)


def like(old: nn.Module, new: nn.Module, somewhere: Tensor) -> nn.Module:
    """`new` with the device, dtype (else of `somewhere`) and mode of `old`; what it kept of `old` stays as it was."""
    tensor = next((t for t in (*old.parameters(), *old.buffers()) if t.is_floating_point()), somewhere)
    kept = set(old.modules())
    for child in new.modules():
        if child in kept:
            continue
        child.training = old.training
        for parameter in child.parameters(recurse=False):
            parameter.data = _moved(parameter.data, tensor)
        for name, buffer in child.named_buffers(recurse=False):
            child._buffers[name] = _moved(buffer, tensor)
    channels_last(new)
    return new


def _moved(tensor: Tensor, there: Tensor) -> Tensor:
    return tensor.to(there.device, there.dtype if tensor.is_floating_point() else None)
