"""Corruptions beside OpenCV and scikit-image, which the originals call (both come with corrupt-tta)."""

import numpy as np
import pytest
import torch

from levelhead.shifts._edges import box, canny, distance, emboss, equalised
from levelhead.shifts._filters import gaussian
from levelhead.shifts.brightness import Brightness
from levelhead.shifts.elastic_transform import ElasticTransform
from levelhead.shifts.saturate import Saturate

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: make test-interop")
color = pytest.importorskip("skimage.color", reason="needs scikit-image: make test-interop")

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "side, mean, spread, sigma, threshold",
    [(32, 0.62, 0.1, 0.7, 0.7), (32, 0.65, 0.3, 1.0, 0.69), (224, 0.65, 0.3, 4.0, 0.69), (224, 0.65, 0.3, 2.0, 0.68)],
)
def test_the_steps_of_spatter_equal_opencv(
    side: int, mean: float, spread: float, sigma: float, threshold: float
) -> None:
    noise = torch.randn(8, side, side, generator=torch.Generator().manual_seed(0))
    liquid = gaussian(noise * spread + mean, sigma)
    levels = (liquid.masked_fill(liquid < threshold, 0) * 255).floor().clamp(0, 255)
    edges = canny(levels, 50, 150)
    away = distance(edges, 20)
    shallow = box(away).div(9).add(1e-4).floor()
    even = equalised(shallow, 20)
    raised = emboss(even)
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    for n in range(len(levels)):
        image = levels[n].to(torch.uint8).numpy()
        drawn = cv2.Canny(image, 50, 150)
        np.testing.assert_array_equal(edges[n].numpy(), drawn > 0)
        exact = cv2.distanceTransform(255 - drawn, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        np.testing.assert_allclose(away[n].numpy(), np.minimum(exact, 20), atol=1e-4)
        chamfer = cv2.distanceTransform(255 - drawn, cv2.DIST_L2, 5)  # what the original calls
        assert np.abs(away[n].numpy() - np.minimum(chamfer, 20)).max() <= 0.021 * 20
        flat = shallow[n].to(torch.uint8).numpy()
        assert np.abs(even[n].numpy() - cv2.equalizeHist(flat)).max() <= 1  # ties may round otherwise
        spread_out = even[n].to(torch.uint8).numpy()
        np.testing.assert_array_equal(raised[n].numpy(), cv2.filter2D(spread_out, cv2.CV_8U, kernel))
        relief = raised[n].to(torch.uint8).numpy()
        np.testing.assert_array_equal(box(raised)[n].div(9).round().numpy(), cv2.blur(relief, (3, 3)))


def test_colours_equal_scikit_image() -> None:
    x = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255
    for severity, c in enumerate((0.05, 0.1, 0.15, 0.2, 0.3), start=1):
        hsv = color.rgb2hsv(x.double().numpy(), channel_axis=1)
        hsv[:, 2] = np.clip(hsv[:, 2] + c, 0, 1)
        exact = 255 * np.clip(color.hsv2rgb(hsv, channel_axis=1), 0, 1)
        mine = 255 * Brightness()(x, severity, torch.Generator()).double().numpy()
        assert np.abs(mine + 0.5 - exact).max() < 0.51
    for severity, (scale, shift) in enumerate(((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), start=1):
        hsv = color.rgb2hsv(x.double().numpy(), channel_axis=1)
        hsv[:, 1] = np.clip(hsv[:, 1] * scale + shift, 0, 1)
        exact = 255 * np.clip(color.hsv2rgb(hsv, channel_axis=1), 0, 1)
        mine = 255 * Saturate()(x, severity, torch.Generator()).double().numpy()
        assert np.abs(mine + 0.5 - exact).max() < 0.51


def test_the_affine_map_is_opencv_s_up_to_its_steps_of_a_32nd() -> None:
    """Smooth images of a slope of at most 8 levels a pixel: 1/64 pixel either way is worth a quarter of a level."""
    down, right = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x = ((4 * right + 3 * down) / 255).expand(6, 1, 32, 32).contiguous()
    ours = ElasticTransform()(x, 1, torch.Generator().manual_seed(0))
    drawn = torch.rand(6, 6 + 2 * 1024, generator=torch.Generator().manual_seed(0))[:, :6] * 2 - 1
    before = np.float32([[26, 26], [26, 6], [6, 6]])
    for image, moves, result in zip(x[:, 0].numpy(), drawn.numpy(), ours[:, 0], strict=True):
        after = before + moves.reshape(3, 2).astype(np.float32) * np.float32(2.56)
        matrix = cv2.getAffineTransform(before, after)
        exact = 255 * cv2.warpAffine(image, matrix, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(255 * result.numpy() + 0.5 - exact).max() < 0.5 + 0.3
