import numpy as np
import pytest
import torch
from PIL import Image
from shifts.oracle import pictures

from levelhead.shifts.pixelate import Pixelate, box, nearest


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("height, width", [(28, 28), (32, 32), (33, 41), (96, 130), (224, 224)])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_pillow_to_the_bit(channels: int, height: int, width: int, severity: int) -> None:
    constants = (0.95, 0.9, 0.85, 0.75, 0.65) if height < 85 else (0.6, 0.5, 0.4, 0.3, 0.25)
    c = constants[severity - 1]
    x = pictures(1, channels, height, width, seed=severity)
    ours = (255 * Pixelate()(x, severity, torch.Generator())).round()
    levels = (255 * x[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(levels.squeeze())
    picture = picture.resize((int(width * c), int(height * c)), Image.Resampling.BOX)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    np.testing.assert_array_equal(ours[0].permute(1, 2, 0).numpy().squeeze(), np.asarray(picture))


def test_weights_of_every_size_equal_pillow() -> None:
    """One row of pixels, one of them white: the shrunk row shows its column of weights."""
    for size in range(4, 60):
        row = np.arange(size, dtype=np.float32)
        for smaller in range(max(1, size // 4), size):
            shrunk = Image.fromarray(row[None], mode="F").resize((smaller, 1), Image.Resampling.BOX)
            np.testing.assert_allclose(box(size, smaller).numpy() @ row, np.asarray(shrunk)[0], rtol=1e-5)
            few = np.arange(smaller, dtype=np.float32)
            enlarged = Image.fromarray(few[None], mode="F").resize((size, 1), Image.Resampling.BOX)
            np.testing.assert_array_equal(few[nearest(smaller, size).numpy()], np.asarray(enlarged)[0])


def test_a_constant_image_is_a_fixed_point() -> None:
    x = torch.full((1, 3, 32, 32), 77 / 255)
    assert torch.equal(Pixelate()(x, 5, torch.Generator()), x)


def test_tiny_images_keep_a_pixel() -> None:
    x = pictures(1, 1, 1, 4)
    assert Pixelate()(x, 5, torch.Generator()).shape == x.shape
