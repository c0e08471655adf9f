import pytest
import torch
from shifts.oracle import pictures

from levelhead.shifts.impulse_noise import ImpulseNoise

SMALL, LARGE = (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)


@pytest.mark.parametrize("side, constants", [(32, SMALL), (96, LARGE)])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_the_stated_share_turns_black_or_white_with_even_odds(
    side: int, constants: tuple[float, ...], severity: int
) -> None:
    x = torch.full((300_000 // side**2, 3, side, side), 128 / 255)
    noisy = ImpulseNoise()(x, severity, torch.Generator().manual_seed(severity))
    share, count = constants[severity - 1], noisy.numel()
    spread = (share * (1 - share) / count) ** 0.5
    assert float((noisy != x).double().mean()) == pytest.approx(share, abs=4 * spread)
    assert float((noisy == 0).double().mean()) == pytest.approx(share / 2, abs=4 * spread)
    assert set(noisy.unique().tolist()) == {0.0, float(x[0, 0, 0, 0]), 1.0}


def test_channels_are_hit_on_their_own_and_the_rest_is_untouched() -> None:
    x = pictures(40, 3, 32, 32)
    noisy = ImpulseNoise()(x, 5, torch.Generator().manual_seed(0))
    kept = (noisy != 0) & (noisy != 1)
    assert torch.equal(noisy[kept], x[kept])
    hit = (ImpulseNoise()(torch.full_like(x, 0.5), 5, torch.Generator().manual_seed(0)) - 127 / 255).abs() > 1e-3
    together = float((hit[:, 0] & hit[:, 1]).double().mean())
    assert together == pytest.approx(0.07**2, rel=0.25)
