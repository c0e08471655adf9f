"""Weight initialisation by name of the scheme, drawn from torch's global generator (seed it around the build)."""

from torch import nn


def he_normal(module: nn.Module) -> None:
    """Convolutions ~ Normal(0, 2 / fan_out) with zero bias; norms keep 1 and 0, linear layers torch's default.

    fan_out = out channels * kernel area keeps the gradients' variance through ReLUs.
    He et al., 2015, arXiv 1502.01852.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def transformer_normal(module: nn.Module) -> None:
    """Linear layers ~ Normal(0, 0.02^2), cut at two units, with zero bias; all else stays.

    What ViT, PiT and Swin start from; within LayerNorm and residual sums the scale matters little.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
