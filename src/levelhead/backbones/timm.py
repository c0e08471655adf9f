"""Any classification model of timm, by name; needs the `vision` extra."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from levelhead.layers.foreign import dotted_name, normalised
from levelhead.layers.pixels import image_shape
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.types import require


@dataclass(frozen=True)
class Timm:
    """`timm.create_model(name, pretrained=..., num_classes=..., in_chans=..., **options)` as a network.

    name        as in `timm.list_models()`.
    pretrained  start from the published weights (timm downloads them); the inputs are then normalised as these weights
                expect, otherwise by the statistics of the training data.
    options     further arguments of `create_model`: a mapping or pairs, such as (("img_size", 32), ("drop_rate", 0.1)).

    Raises MissingExtra without timm, ValueError where the model's classifier is no linear layer. The model's own
    initialisation, from torch's global generator.
    """

    name: str = "resnet18"
    pretrained: bool = False
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))

    def __call__(self, signature: Signature) -> Network:
        """A network of two stages, normalise and model."""
        timm = require("timm", extra="vision")
        channels, *_ = image_shape(signature, spec="Timm")
        model = timm.create_model(
            self.name,
            pretrained=self.pretrained,
            num_classes=signature.num_outputs,
            in_chans=channels,
            **dict(self.options),
        )
        published = (model.pretrained_cfg["mean"], model.pretrained_cfg["std"]) if self.pretrained else None
        return normalised(
            model, head=dotted_name(model, model.get_classifier()), signature=signature, moments=published
        )
