"""Normalisation by name, for backbones that offer a choice."""

import math

from torch import nn

NORMS = ("batch", "group", "none")


def norm(kind: str, channels: int) -> nn.Module:
    """A normalisation layer over `channels` channels of (batch, channel, *site).

    "batch"  BatchNorm (arXiv 1502.03167): mixes the examples of a batch and keeps running statistics.
    "group"  GroupNorm (arXiv 1803.08494), up to 32 groups of at least 8 channels: each example alone, no statistics,
             hence what HMC and tiny batches want.
    "none"   nothing.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        groups = math.gcd(32, channels)
        while groups > 1 and channels // groups < 8:
            groups //= 2
        return nn.GroupNorm(groups, channels)
    assert kind == "none", kind
    return nn.Identity()


def check_norm(spec: str, kind: str, *, allowed: tuple[str, ...] = NORMS) -> None:
    """ValueError that names the spec unless `kind` is one of `allowed`."""
    if kind not in allowed:
        raise ValueError(f"{spec}: norm must be one of {', '.join(map(repr, allowed))}; got {kind!r}")
