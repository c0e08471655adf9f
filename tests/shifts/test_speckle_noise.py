import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm

from levelhead.shifts.speckle_noise import SpeckleNoise

SMALL, LARGE = (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)


@pytest.mark.parametrize("side, constants", [(32, SMALL), (100, LARGE)])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("level", [30, 200])
def test_levels_have_the_normal_s_probabilities(
    side: int, constants: tuple[float, ...], severity: int, level: int
) -> None:
    x = torch.full((200_000 // side**2, 1, side, side), level / 255)
    noisy = SpeckleNoise()(x, severity, torch.Generator().manual_seed(severity))
    seen = np.bincount((255 * noisy).round().long().flatten(), minlength=256)
    edges = norm.cdf(np.arange(1, 256) / 255, level / 255, constants[severity - 1] * level / 255)
    expected = np.diff(edges, prepend=0, append=1) * noisy.numel()
    often = expected >= 10
    seen, expected = (np.append(v[often], v[~often].sum()) for v in (seen, expected))
    kept = expected > 0
    assert chisquare(seen[kept], expected[kept], sum_check=False).pvalue > 1e-4


def test_black_stays_black() -> None:
    assert SpeckleNoise()(torch.zeros(2, 3, 32, 32), 5, torch.Generator()).max() == 0
