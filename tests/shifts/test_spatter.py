"""Against the published steps for one image in plain NumPy and SciPy, with the same draws."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, distance_transform_edt, gaussian_filter, label
from shifts.oracle import pictures

from levelhead.shifts._edges import box, canny, distance, emboss, equalised
from levelhead.shifts.spatter import Spatter

SMALL = (
    (0.62, 0.1, 0.7, 0.7, 0.5, 0),
    (0.65, 0.1, 0.8, 0.7, 0.5, 0),
    (0.65, 0.3, 1, 0.69, 0.5, 0),
    (0.65, 0.1, 0.7, 0.69, 0.6, 1),
    (0.65, 0.1, 0.5, 0.68, 0.6, 1),
)
LARGE = (
    (0.65, 0.3, 4, 0.69, 0.6, 0),
    (0.65, 0.3, 3, 0.68, 0.6, 0),
    (0.65, 0.3, 2, 0.68, 0.5, 0),
    (0.65, 0.3, 1, 0.65, 1.5, 1),
    (0.67, 0.4, 1, 0.65, 1.5, 1),
)
WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255


def edges_of(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Canny, pixel by pixel; directions by the angle itself."""
    smooth, slope = np.array([1, 2, 1]), np.array([-1, 0, 1])
    dx = correlate(image, np.outer(smooth, slope), mode="nearest")
    dy = correlate(image, np.outer(slope, smooth), mode="nearest")
    size = np.abs(dx) + np.abs(dy)
    padded = np.pad(size, 1)
    kept = np.zeros(image.shape, bool)
    for h, w in np.ndindex(*image.shape):
        here, angle = size[h, w], np.degrees(np.arctan2(abs(dy[h, w]), abs(dx[h, w])))
        near = padded[h : h + 3, w : w + 3]
        if angle < 22.5:
            ridge = here > near[1, 0] and here >= near[1, 2]
        elif angle > 67.5:
            ridge = here > near[0, 1] and here >= near[2, 1]
        elif (dx[h, w] < 0) == (dy[h, w] < 0):
            ridge = here > near[0, 0] and here > near[2, 2]
        else:
            ridge = here > near[0, 2] and here > near[2, 0]
        kept[h, w] = here > low and ridge
    parts, count = label(kept, structure=np.ones((3, 3)))
    strong = [part for part in range(1, count + 1) if (size[parts == part] > high).any()]
    return np.isin(parts, strong)


def equal_histogram(image: np.ndarray) -> np.ndarray:
    counts = np.bincount(image.astype(int).ravel(), minlength=256)
    first = counts.nonzero()[0][0]
    if counts[first] == image.size:
        return image
    table = np.rint((counts.cumsum() - counts[first]) * (255 / (image.size - counts[first])))
    return table[image.astype(int)]


def wetness(liquid: np.ndarray) -> np.ndarray:
    """m of the water, at most 1."""
    levels = np.floor(liquid * 255)
    edges = edges_of(levels, 50, 150)
    depth = np.minimum(distance_transform_edt(~edges), 20) if edges.any() else np.full(levels.shape, 20.0)
    box9, relief = np.ones((3, 3)) / 9, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    depth = equal_histogram(np.floor(correlate(depth, box9, mode="mirror") + 1e-4))
    depth = np.clip(correlate(depth, relief, mode="mirror"), 0, 255)
    thick = levels * np.rint(correlate(depth, box9, mode="mirror"))
    return thick / max(thick.max(), 1)


def spattered(image: np.ndarray, level: tuple[float, ...], noise: np.ndarray) -> np.ndarray:
    mean, spread, sigma, threshold, mix, mud = level
    liquid = gaussian_filter(mean + spread * noise, sigma, mode="nearest", truncate=4)
    colour = (MUD if mud else WATER)[:, None, None]
    colour = colour if len(image) == 3 else colour.mean(keepdims=True)
    if mud:
        cover = gaussian_filter((liquid > threshold).astype(float), mix, mode="nearest", truncate=4)
        cover[cover < 0.8] = 0
        return image * (1 - cover) + colour * cover
    liquid[liquid < threshold] = 0
    return image + mix * wetness(liquid) * colour


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 37), SMALL), ((3, 90, 86), LARGE)])
def test_equals_the_definition(shape: tuple[int, ...], constants: tuple[tuple[float, ...], ...], severity: int) -> None:
    x = pictures(4, *shape, seed=severity)
    ours = Spatter()(x, severity, torch.Generator().manual_seed(severity))
    pixels = shape[1] * shape[2]
    drawn = torch.randn(4, -(-pixels // 16) * 16, generator=torch.Generator().manual_seed(severity))[:, :pixels]
    for image, numbers, result in zip(x.double().numpy(), drawn.double().numpy(), ours, strict=True):
        exact = 255 * np.clip(spattered(image, constants[severity - 1], numbers.reshape(shape[1:])), 0, 1)
        mine = (255 * result.double()).round().numpy()
        # a threshold that float32 and float64 meet differently moves a drop's rim by a pixel, no more
        assert (np.abs(mine + 0.5 - exact) > 0.51).mean() < 0.01


def drops(count: int = 6, side: int = 40) -> torch.Tensor:
    """Whole levels: 0 beside blobs of 100 to 250."""
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[:, 0]
    return (150 + 300 * smooth).clamp(0, 255).floor() * (smooth > 0.05)


def test_edges_equal_canny_s_definition() -> None:
    levels = drops()
    found = canny(levels, 50, 150)
    assert 0.02 < float(found.double().mean()) < 0.5
    for image, edges in zip(levels.double().numpy(), found.numpy(), strict=True):
        np.testing.assert_array_equal(edges, edges_of(image, 50, 150))


def test_weak_edges_need_a_strong_one() -> None:
    ramp = torch.zeros(1, 20, 20)
    ramp[..., 10:] = 30.0  # a step of 30 has |dx| = 120: weak
    assert not canny(ramp, 50, 150).any()
    ramp[:, 10:, 10:] = 60.0  # strong below: the whole line counts
    assert int(canny(ramp, 50, 150).sum(1).max()) >= 18


@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.5])
def test_distances_are_euclidean_up_to_the_limit(share: float) -> None:
    edges = torch.rand(5, 50, 33, generator=torch.Generator().manual_seed(1)) < share
    for mask, found in zip(edges.numpy(), distance(edges, 20), strict=True):
        exact = distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, 99.0)
        np.testing.assert_allclose(found.numpy(), np.minimum(exact, 20), rtol=1e-6)


def test_filters_equal_scipy_and_one_level_stays_as_it_is() -> None:
    levels = drops()
    relief = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shallow = (levels / 13).floor()
    for image, thin, sums, raised, even in zip(
        levels.numpy(), shallow.numpy(), box(levels), emboss(levels), equalised(shallow, 20), strict=True
    ):
        np.testing.assert_array_equal(sums.numpy(), correlate(image, np.ones((3, 3)), mode="mirror"))
        np.testing.assert_array_equal(raised.numpy(), np.clip(correlate(image, relief, mode="mirror"), 0, 255))
        np.testing.assert_array_equal(even.numpy(), equal_histogram(thin))
    flat = torch.full((2, 6, 6), 7.0)
    assert torch.equal(equalised(flat, 20), flat)


def test_an_image_without_a_drop_stays_as_it_is() -> None:
    dry = ((0.1, 0.01, 1.0, 0.9, 0.5, False),) * 5
    x = pictures(2, 3, 32, 32)
    assert torch.equal(Spatter(small=dry)(x, 1, torch.Generator()), x)
