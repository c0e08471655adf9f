"""Images, and what 8-bit agreement with a float64 computation means."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """8-bit images with flat parts, edges, noise, pure black and pure white."""
    generator = torch.Generator().manual_seed(seed)
    height, width = shape[-2:]
    ramp = torch.linspace(0, 1, width).expand(*shape[:-1], width)
    noise = torch.rand(shape, generator=generator)
    x = torch.where(torch.rand(shape, generator=generator) < 0.5, ramp, noise)
    x = x * torch.rand(*shape[:2], 1, 1, generator=generator)
    x[..., : height // 4, : width // 4] = 0.0
    x[..., -(height // 4) :, -(width // 4) :] = 1.0
    return x.mul(255).round() / 255


def assert_equal_in_8_bits(ours: Tensor, exact: NDArray[np.float64]) -> None:
    """Equal to the truncated exact values; where those lie on a level (to float32 rounding), either side is right."""
    levels = 255 * np.clip(exact, 0, 1)
    mine = (255 * ours.double()).round().numpy()
    np.testing.assert_allclose(mine, 255 * ours.double().numpy(), atol=1e-4)  # whole levels
    on_a_level = np.abs(levels - levels.round()) < 2e-3
    np.testing.assert_array_equal(mine[~on_a_level], np.floor(levels)[~on_a_level])
    assert np.abs(mine - levels.round())[on_a_level].max(initial=0) <= 1
