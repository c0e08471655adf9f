import pytest
import torch
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.contrast import Contrast


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side, constants", [(32, (0.75, 0.5, 0.4, 0.3, 0.15)), (100, (0.4, 0.3, 0.2, 0.1, 0.05))])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_definition(channels: int, side: int, constants: tuple[float, ...], severity: int) -> None:
    x = pictures(4, channels, side, side)
    ours = Contrast()(x, severity, torch.Generator())
    for image, result in zip(x.double().numpy(), ours, strict=True):
        mean = image.mean(axis=(1, 2), keepdims=True)
        assert_equal_in_8_bits(result, (image - mean) * constants[severity - 1] + mean)


def test_constant_images_are_fixed_points() -> None:
    """At every level: float32 means fall short of a fifth of them, and truncation must not take a level for that."""
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 3, 32, 32)
    for severity in Contrast.severities:
        assert torch.equal(Contrast()(x, severity, torch.Generator()), x)
