"""Counting parameters without making them."""

import torch

from levelhead.likelihood import Categorical, Signature


def num_parameters(spec, shape: tuple[int, ...], num_classes: int) -> int:
    channels = shape[0]
    with torch.device("meta"):
        network = spec(Signature(shape, num_classes, Categorical(num_classes), (0.0,) * channels, (1.0,) * channels))
    return sum(parameter.numel() for parameter in network.parameters())
