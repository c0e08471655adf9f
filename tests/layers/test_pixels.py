import pytest

from levelhead.layers.pixels import image_shape
from levelhead.likelihood import Signature


def test_channels_height_width():
    assert image_shape(Signature((3, 20, 30)), spec="Net", smallest=20) == (3, 20, 30)


def test_tables_are_pointed_to_the_mlp():
    with pytest.raises(ValueError, match=r"Net reads images .* shape \(7,\).* MLP\(\)"):
        image_shape(Signature((7,)), spec="Net")


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="Net wants images of at least 12 x 12 pixels, got 30 x 11"):
        image_shape(Signature((1, 30, 11)), spec="Net", smallest=12)
