"""Any classification model of torchvision, by name; needs the `vision` extra."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import reduce, repeat
from torch import nn

from levelhead.layers.foreign import exchange, last_linear, normalised
from levelhead.layers.pixels import image_shape
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import require


@dataclass(frozen=True)
class Torchvision:
    """`torchvision.models.get_model(name, weights=..., **options)` with a head of our outputs, as a network.

    name     as in `torchvision.models.list_models()`.
    weights  name of published weights, such as "IMAGENET1K_V1" or "DEFAULT" (torchvision downloads them); the inputs
             are then normalised as these weights expect, otherwise by the statistics of the training data.
    options  further arguments of the model: a mapping or pairs.

    Where images do not have three channels, the first convolution is made for theirs: each of its new channels is the
    mean of the three, scaled so that the response to a grey image stays. Raises MissingExtra without torchvision,
    ValueError for a model that does not end in a linear layer. The model's own initialisation, from torch's global
    generator.
    """

    name: str = "resnet18"
    weights: str | None = None
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))

    def __call__(self, signature: Signature) -> Network:
        """A network of two stages, normalise and model."""
        models = require("torchvision.models", extra="vision")
        channels, *_ = image_shape(signature, spec="Torchvision")
        model = models.get_model(self.name, weights=self.weights, **dict(self.options))
        head = last_linear(model, spec=f"Torchvision(name={self.name!r})")
        exchange(model, head, nn.Linear(model.get_submodule(head).in_features, signature.num_outputs))
        if channels != 3:
            adapt_first_convolution(model, channels)
        moments = None
        if self.weights is not None:
            preset = models.get_model_weights(self.name)[self.weights].transforms()
            moments = (preset.mean, preset.std)
        return normalised(model, head=head, signature=signature, moments=moments)


def adapt_first_convolution(model: nn.Module, channels: int) -> None:
    """Make the first convolution read `channels` channels; a grey image gives what it gave over three."""
    name, old = next((name, child) for name, child in model.named_modules() if isinstance(child, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        total = reduce(old.weight, "out channel h w -> out h w", "sum")
        new.weight.copy_(repeat(total / channels, "out h w -> out channel h w", channel=channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    exchange(model, name, new)
