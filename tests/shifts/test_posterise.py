import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from levelhead.shifts.posterise import Posterise


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_pillow(severity: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    ours = Posterise()(levels.float() / 255, severity, torch.Generator()).mul(255).round().to(torch.uint8)
    theirs = ImageOps.posterize(Image.fromarray(levels[0, 0].numpy()), Posterise().bits[severity - 1])
    np.testing.assert_array_equal(ours[0, 0].numpy(), np.asarray(theirs))


@pytest.mark.parametrize("bits", [(5, 4), (9, 4, 3, 2, 1), (5, 4, 3, 2, 0)])
def test_bad_bits_are_named(bits: tuple) -> None:
    with pytest.raises(ValueError, match="Posterise: bits"):
        Posterise(bits=bits)
