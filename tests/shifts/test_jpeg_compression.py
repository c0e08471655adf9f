import io

import numpy as np
import pytest
import torch
from PIL import Image
from shifts.oracle import pictures

from levelhead.shifts.jpeg_compression import CHROMA, LUMA, JpegCompression, cosines, doubled, halved, steps

SMALL, LARGE = (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)


def through_pillow(image: np.ndarray, quality: int) -> np.ndarray:
    """Levels (height, width, channel) as a JPEG file and back."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("height, width", [(28, 28), (32, 32), (33, 41), (30, 37), (96, 130)])
def test_equals_pillow(channels: int, height: int, width: int, severity: int) -> None:
    """To the level but for a pixel in a thousand at most (none, with the Pillow and the pictures of today)."""
    x = pictures(3, channels, height, width, seed=severity)
    quality = (SMALL if height < 85 else LARGE)[severity - 1]
    ours = (255 * JpegCompression()(x, severity, torch.Generator())).round().movedim(1, -1).numpy()
    levels = (255 * x).round().to(torch.uint8).movedim(1, -1).numpy()
    theirs = np.stack([through_pillow(image, quality) for image in levels]).astype(float)
    assert np.abs(ours - theirs).max() <= 2
    assert (ours != theirs).mean() <= 1e-3


@pytest.mark.parametrize("quality", [1, 7, 40, 50, 80, 100])
def test_steps_are_those_in_a_file(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization  # in Pillow's order: row by row
    for table, mine in zip(tables.values(), (LUMA, CHROMA), strict=True):
        assert steps(mine, quality).flatten().tolist() == list(table)


def test_the_transform_is_the_cosine_transform() -> None:
    place, wave = torch.arange(8.0), torch.arange(8.0)[:, None]
    exact = torch.cos((2 * place + 1) * wave * torch.pi / 16) * 2**0.5
    exact[0] /= 2**0.5
    assert (cosines() / 2**13 - exact).abs().max() < 2e-4
    product = cosines().double() @ cosines().double().mT / 2**26 / 8
    assert (product - torch.eye(8)).abs().max() < 2e-4


def test_colour_keeps_its_mean_through_both_sizes() -> None:
    plane = torch.arange(256.0).reshape(1, 16, 16)
    # the four pixels from (0, 2 k), 16 a row, sum to 8 k + 34
    assert halved(plane)[0, 0].tolist() == [(8 * k + 34 + 1 + k % 2) // 4 for k in range(8)]
    flat = torch.full((1, 5, 7), 93.0)
    assert torch.equal(doubled(flat, 10, 13), torch.full((1, 10, 13), 93.0))
    row = torch.tensor([0.0, 16.0]).expand(1, 1, 2)
    assert doubled(row, 2, 4)[0].tolist() == [[0.0, 4.0, 12.0, 16.0]] * 2


def test_grey_levels_of_whole_images_survive() -> None:
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 3, 32, 32)
    for severity, quality in enumerate(SMALL, start=1):
        worst = -(-int(steps(LUMA, quality)[0, 0]) // 16)  # half a step of a block's sum over 8
        assert (JpegCompression()(x, severity, torch.Generator()) - x).abs().max() <= worst / 255 + 1e-6


def test_qualities_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 100, got 0"):
        JpegCompression(small=(0, 10, 20, 30, 40))
