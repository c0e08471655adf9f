"""Passes on the side of training: a network at rest, statistics that stay, noise that is replayed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from levelhead.declared import Stochastic
from levelhead.network import Network
from levelhead.probe import evaluating


@contextmanager
def still(network: Network) -> Iterator[Network]:
    """The network at rest: eval, no layer draws, no parameter collects gradients. Everything is put back."""
    required = [p for p in network.parameters() if p.requires_grad]
    stochastic = [(layer, layer.muted) for layer in network.layers(Stochastic)]
    with evaluating(network):
        try:
            for parameter in required:
                parameter.requires_grad_(False)
            for layer, _ in stochastic:
                layer.muted = True  # type: ignore[assignment]
            yield network
        finally:
            for parameter in required:
                parameter.requires_grad_(True)
            for layer, muted in stochastic:
                layer.muted = muted


@contextmanager
def keeping_statistics(network: Network) -> Iterator[Network]:
    """Layers with running statistics normalise as in training but keep what they had (track_running_stats off)."""
    tracking = [module for module in network.modules() if getattr(module, "track_running_stats", False)]
    try:
        for module in tracking:
            module.track_running_stats = False  # type: ignore[assignment]
        yield network
    finally:
        for module in tracking:
            module.track_running_stats = True  # type: ignore[assignment]


@contextmanager
def replaying(state: dict[str, Any], device: torch.device) -> Iterator[None]:
    """torch's random stream as it was at `state`, for a while."""
    with torch.random.fork_rng(devices=_cuda(device)):
        set_noise_state(state, device)
        yield


def noise_state(device: torch.device) -> dict[str, Any]:
    """Where torch's random streams stand: the CPU's, and the device's own."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_noise_state(state: dict[str, Any], device: torch.device) -> None:
    """Put torch's random streams back where they stood."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """torch's random stream started at `seed` for a while; the outer stream goes on as if nothing happened."""
    with torch.random.fork_rng(devices=_cuda(device or torch.device("cpu"))):
        torch.manual_seed(seed)
        yield


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


@contextmanager
def side_pass(network: Network, state: dict[str, Any]) -> Iterator[Network]:
    """A second pass of the same step: training mode, no statistic moves, the noise of `state` is replayed."""
    with keeping_statistics(network), replaying(state, network.device):
        yield network
