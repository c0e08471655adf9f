import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm

from levelhead.shifts.gaussian_noise import GaussianNoise


@pytest.mark.parametrize(
    "side, constants", [(32, (0.04, 0.06, 0.08, 0.09, 0.10)), (100, (0.08, 0.12, 0.18, 0.26, 0.38))]
)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("level", [0, 100, 250])
def test_levels_have_the_normal_s_probabilities(
    side: int, constants: tuple[float, ...], severity: int, level: int
) -> None:
    x = torch.full((200_000 // side**2, 1, side, side), level / 255)
    noisy = GaussianNoise()(x, severity, torch.Generator().manual_seed(severity))
    seen = np.bincount((255 * noisy).round().long().flatten(), minlength=256)
    # level k is the interval [k, k + 1) / 255; the first takes all below, the last all above 1
    edges = norm.cdf(np.arange(1, 256) / 255, level / 255, constants[severity - 1])
    expected = np.diff(edges, prepend=0, append=1) * noisy.numel()
    often = expected >= 10
    seen, expected = (np.append(v[often], v[~often].sum()) for v in (seen, expected))
    kept = expected > 0
    assert chisquare(seen[kept], expected[kept], sum_check=False).pvalue > 1e-4


def test_noise_is_independent_over_channels_and_images() -> None:
    noisy = GaussianNoise()(torch.full((2, 3, 32, 32), 0.5), 5, torch.Generator().manual_seed(0))
    correlation = np.corrcoef(noisy.reshape(6, -1))
    assert np.abs(correlation - np.eye(6)).max() < 4 / 32
