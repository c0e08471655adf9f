import pytest
from backbones.count import num_parameters

from levelhead.backbones.lenet import LeNet
from levelhead.likelihood import Signature


@pytest.mark.parametrize(
    "shape, parameters",
    [
        ((1, 28, 28), 61_706),  # as published with full links: 156 + 2,416 + 48,120 + 10,164 + 850
        ((1, 32, 32), 61_706),  # the same maps: 28 pixels are padded to 32
        ((3, 32, 32), 62_006),
        ((1, 12, 12), 61_706 - 24 * 16 * 120),  # one site instead of 25 before the first linear layer
    ],
)
def test_parameters(shape, parameters):
    assert num_parameters(LeNet(), shape, 10) == parameters


def test_stages():
    names = [name for name, _ in LeNet()(Signature((1, 28, 28), 10)).features.named_children()]
    assert names == ["normalise", "stage1", "stage2", "flatten", "hidden1", "hidden2"]


def test_images_below_twelve_pixels_are_refused():
    with pytest.raises(ValueError, match="at least 12 x 12 pixels, got 11 x 20"):
        LeNet()(Signature((1, 11, 20), 10))
