import numpy as np
import pytest
import torch
from scipy.stats import chisquare, poisson

from levelhead.shifts.shot_noise import ShotNoise


@pytest.mark.parametrize("side, constants", [(32, (500, 250, 100, 75, 50)), (100, (60, 25, 12, 5, 3))])
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("level", [10, 128, 255])
def test_levels_have_the_poisson_s_probabilities(
    side: int, constants: tuple[float, ...], severity: int, level: int
) -> None:
    c = constants[severity - 1]
    x = torch.full((100_000 // side**2, 1, side, side), level / 255)
    noisy = ShotNoise()(x, severity, torch.Generator().manual_seed(severity))
    seen = np.bincount((255 * noisy).round().long().flatten(), minlength=256)
    counts = np.arange(20 * int(c) + 100)
    shown = np.floor(255 * np.minimum(counts / c, 1) + 1e-6).astype(int)
    expected = np.bincount(shown, poisson.pmf(counts, c * level / 255), minlength=256) * noisy.numel()
    often = expected >= 10
    assert seen[expected == 0].sum() == 0
    seen, expected = (np.append(v[often], v[~often].sum()) for v in (seen, expected))
    kept = expected > 0
    assert chisquare(seen[kept], expected[kept], sum_check=False).pvalue > 1e-4


def test_black_stays_black() -> None:
    assert ShotNoise()(torch.zeros(2, 3, 32, 32), 5, torch.Generator()).max() == 0


def test_variance_is_x_over_c() -> None:
    x = torch.full((8, 3, 32, 32), 0.3)
    noisy = ShotNoise()(x, 3, torch.Generator().manual_seed(0))
    assert float(noisy.var()) == pytest.approx(0.3 / 100, rel=0.05)
