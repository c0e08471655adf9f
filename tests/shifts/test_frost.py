import numpy as np
import pytest
import torch
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts._ice import PALETTES, ice
from levelhead.shifts.frost import Frost

SMALL = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
LARGE = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 40), SMALL), ((3, 90, 100), LARGE)])
def test_equals_the_definition(
    shape: tuple[int, ...], constants: tuple[tuple[float, float], ...], severity: int
) -> None:
    """a x + b times a part of a texture, wrapped at its border."""
    x = pictures(7, *shape)
    ours = Frost()(x, severity, torch.Generator().manual_seed(severity))
    textures = ice().double().numpy() if shape[1] > 84 else ice()[..., 2::5, 2::5].double().numpy()
    textures = textures if shape[0] == 3 else textures.mean(1, keepdims=True)
    drawn = torch.rand(7, 3, generator=torch.Generator().manual_seed(severity))
    scene, veil = constants[severity - 1]
    for image, (which, down, right), result in zip(x.double().numpy(), drawn, ours, strict=True):
        texture = textures[(0, 1, 1, 2, 3)[int(which * 5)]]
        top, left = int(down * textures.shape[-1]), int(right * textures.shape[-1])
        part = np.roll(texture, (-top, -left), (1, 2))[:, : shape[1], : shape[2]]
        assert_equal_in_8_bits(result, scene * image + veil * part)


def slope(image: np.ndarray) -> float:
    """Of the logarithm of the power over the logarithm of the frequency."""
    side = len(image)
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    line = np.fft.fftfreq(side, 1 / side)
    ring = np.hypot(line[:, None], line).astype(int)
    rings = np.arange(2, side // 2)
    mean = np.bincount(ring.ravel(), power.ravel())[rings] / np.bincount(ring.ravel())[rings]
    return float(np.polyfit(np.log(rings), np.log(mean), 1)[0])


@pytest.mark.parametrize("texture", range(4))
def test_textures_have_the_statistics_of_the_published_ones(texture: int) -> None:
    colours = 255 * ice()[texture].double().numpy()
    small = colours[:, 2::5, 2::5]
    np.testing.assert_allclose(colours.mean((1, 2)), PALETTES[texture][0], atol=2)
    assert (colours.std((1, 2)) >= 16).all()
    assert (colours.std((1, 2)) <= 44).all()
    assert np.corrcoef(colours.reshape(3, -1)).min() >= 0.6
    assert -1.9 <= slope(colours.mean(0)) <= -1.4
    assert -1.4 <= slope(small.mean(0)) <= -0.4
    parts = [small[:, h : h + 32, w : w + 32].std((1, 2)).mean() for h in (0, 48, 96) for w in (0, 48, 96)]
    assert 14 <= np.mean(parts) <= 32


def test_textures_are_periodic_and_of_8_bits() -> None:
    textures = 255 * ice()
    assert (textures - textures.round()).abs().max() < 1e-4
    inside = (textures[..., 1:] - textures[..., :-1]).abs().mean()
    seam = (textures[..., 0] - textures[..., -1]).abs().mean()
    assert float(seam) == pytest.approx(float(inside), rel=0.2)


def test_one_picture_of_five_is_there_twice() -> None:
    x = torch.zeros(4000, 3, 8, 8)
    frosted = Frost()(x, 5, torch.Generator().manual_seed(0)).mean((2, 3)) * 255 / 0.45
    means = torch.tensor([colour for colour, _ in PALETTES]).double()
    nearest = torch.cdist(frosted.double(), means).argmin(1)
    share = torch.bincount(nearest, minlength=4) / len(x)
    torch.testing.assert_close(share, torch.tensor([0.2, 0.4, 0.2, 0.2]), atol=0.06, rtol=0)
