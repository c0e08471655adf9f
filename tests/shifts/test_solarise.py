import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from levelhead.shifts.solarise import Solarise


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_pillow(severity: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    ours = Solarise()(levels.float() / 255, severity, torch.Generator()).mul(255).round().to(torch.uint8)
    threshold = math.ceil(255 * Solarise().levels[severity - 1] - 1e-9)
    theirs = ImageOps.solarize(Image.fromarray(levels[0, 0].numpy()), threshold)
    differs = np.flatnonzero(ours[0, 0].numpy() != np.asarray(theirs))
    assert set(differs) <= {threshold}  # where 255 t is a level itself, float32 decides


@pytest.mark.parametrize("levels", [(0.5,), (0.9, 0.8, 0.7, 0.6, 1.5)])
def test_bad_thresholds_are_named(levels: tuple) -> None:
    with pytest.raises(ValueError, match="Solarise: levels"):
        Solarise(levels=levels)
