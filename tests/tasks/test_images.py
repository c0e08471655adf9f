"""Pictures become tensors as they are; those that do not fit together say so."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from levelhead.tasks.images import decoded, resized


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def colours(n=3, height=5, width=7):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_bytes_and_files_alike(tmp_path):
    arrays = colours()
    (tmp_path / "a.png").write_bytes(png(arrays[0]))
    x = decoded([tmp_path / "a.png", png(arrays[1]), png(arrays[2])])
    assert x.shape == (3, 3, 5, 7)
    assert torch.equal(x, torch.from_numpy(arrays).permute(0, 3, 1, 2))


def test_one_channel_where_asked_for():
    arrays = colours()[..., 0]
    assert torch.equal(decoded([png(a) for a in arrays], grey=True)[:, 0], torch.from_numpy(arrays.copy()))
    assert decoded([png(colours()[0])], grey=True).shape == (1, 1, 5, 7)


def test_sizes_must_agree_or_be_chosen():
    mixed = [png(colours()[0]), png(colours(height=6)[0])]
    with pytest.raises(ValueError, match=r"picture 2 .* is 7 x 6, the first is 7 x 5; give size=32"):
        decoded(mixed)
    assert decoded(mixed, size=4).shape == (2, 3, 4, 4)


def test_no_pictures_are_an_error():
    with pytest.raises(ValueError, match="no pictures"):
        decoded([])


def test_resizing_keeps_flat_pictures_and_means():
    flat = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resized(flat, 28), torch.full((1, 1, 28, 28), 77, dtype=torch.uint8))
    x = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    assert torch.allclose(resized(x, 7).float().mean((2, 3)), x.float().mean((2, 3)), atol=8)
    assert torch.equal(resized(x, 28), x)
