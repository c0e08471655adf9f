"""The one gather against a loop over images that pads, cuts, flips and rolls them."""

import pytest
import torch
import torch.nn.functional as F

from levelhead.tasks.augment import Augment

MODES = {"zeros": "constant", "edge": "replicate", "reflect": "reflect"}


def slowly(augment, x, seed):
    """One image at a time, from the same draws in the same order."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = x.shape
    mirrored = torch.rand(batch, generator=generator) < 0.5
    cropped = torch.randint(-augment.crop, augment.crop + 1, (2, batch), generator=generator)
    shifted = torch.randint(-augment.shift, augment.shift + 1, (2, batch), generator=generator)
    images = []
    for i, image in enumerate(x):
        if augment.flip and mirrored[i]:
            image = image.flip(-1)
        padded = F.pad(image.double()[None], (augment.crop,) * 4, mode=MODES[augment.padding])[0]
        top, left = (cropped[:, i] + augment.crop).tolist()
        image = padded[:, top : top + height, left : left + width].to(x.dtype)
        images.append(image.roll(shifted[:, i].tolist(), (1, 2)))
    return torch.stack(images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(flip=True, crop=0),
        Augment(flip=False, crop=3),
        Augment(flip=False, crop=0, shift=2),
        *(Augment(flip=True, crop=2, shift=1, padding=padding) for padding in Augment.PADDINGS),
    ],
    ids=repr,
)
def test_equals_a_loop_over_images(augment, dtype):
    x = torch.randint(0, 256, (40, 3, 9, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    fast = augment(x, torch.Generator().manual_seed(5))
    assert fast.dtype == dtype
    assert torch.equal(fast, slowly(augment, x, seed=5))
    assert not torch.equal(fast, x)


def test_same_generator_same_images():
    x = torch.rand(16, 1, 8, 8)
    first, again, other = (Augment(crop=2)(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_flips_half_of_the_images():
    x = torch.arange(4.0).expand(2000, 1, 4, 4)
    flipped = Augment(crop=0)(x, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 3
    assert 900 < int(flipped.sum()) < 1100


def test_crops_reach_every_place_equally():
    x = torch.zeros(9000, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    moved = Augment(flip=False, crop=1)(x, torch.Generator().manual_seed(0)).mean(0)[0]
    assert torch.allclose(moved[1:4, 1:4], torch.full((3, 3), 1 / 9), atol=0.015)
    assert float(moved.sum()) == pytest.approx(1, abs=1e-5)


WRONG = [{"crop": -1}, {"shift": -1}, {"padding": "wrap"}, {"flip": False, "crop": 0}]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_refuses_settings_without_meaning(wrong):
    with pytest.raises(ValueError, match="Augment"):
        Augment(**wrong)


def test_refuses_images_smaller_than_the_crop():
    with pytest.raises(ValueError, match="only 4 x 4"):
        Augment(crop=4)(torch.zeros(1, 1, 4, 4), torch.Generator())
