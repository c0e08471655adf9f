"""Moments against numpy on the converted whole."""

import numpy as np
import torch

from levelhead.tasks.measure import gaussian, moments


def test_moments_of_pixels():
    x = torch.randint(0, 256, (2500, 3, 4, 5), dtype=torch.uint8)
    mean, std = moments(x)
    whole = x.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, whole.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, whole.std((0, 2, 3)), rtol=1e-12)


def test_moments_of_features_far_from_zero():
    x = (1e4 + torch.randn(3000, 2)).float()
    mean, std = moments(x)
    np.testing.assert_allclose(mean, x.numpy().astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, x.numpy().astype(np.float64).std(0), rtol=1e-9)


def test_constant_features_keep_their_scale():
    x = torch.stack([torch.full((7,), 0.1), torch.zeros(7), torch.arange(7.0)], dim=1)
    _, std = moments(x)
    assert std[:2] == (1.0, 1.0)
    assert std[2] == 2.0
    assert moments(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8))[1] == (1.0,)


def test_the_gaussian_standardises_the_targets():
    y = torch.tensor([[1.0, 10.0], [3.0, 10.0]])
    likelihood = gaussian(y)
    assert likelihood.num_targets == 2
    assert likelihood.shift == (2.0, 10.0)
    assert likelihood.scale == (1.0, 1.0)
