"""Random features against the kernel that they approximate."""

import pytest
import torch

from levelhead.layers.random_features import RandomFeatureReadout, RandomFeatures, orthogonal_gaussian


def features(width: int = 10, rank: int = 4096, **changes) -> RandomFeatures:
    settings = {"length_scale": 1.5, "orthogonal": True, "scaled": True, "layer_norm": False} | changes
    return RandomFeatures(width, rank, **settings)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_features_products_are_the_squared_exponential_kernel(orthogonal):
    h = torch.randn(40, 10)
    phi = features(orthogonal=orthogonal)(h)
    kernel = torch.exp(-torch.cdist(h, h).square() / (2 * 1.5**2))
    assert (phi @ phi.T - kernel).abs().max() < 0.08  # D^-1/2 = 0.016, the largest of 1,600
    torch.testing.assert_close((phi @ phi.T).diagonal().mean(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_unscaled_features_are_half_their_number_times_the_kernel():
    torch.manual_seed(1)
    scaled = features()
    torch.manual_seed(1)
    plain = features(scaled=False)
    h = torch.randn(5, 10)
    torch.testing.assert_close(plain(h), scaled(h) * 2048**0.5)
    assert plain.prior_variance == 2048.0
    assert scaled.prior_variance == pytest.approx(1.0)


def test_orthogonal_features_vary_less_than_independent_ones():
    h = torch.randn(30, 10)
    kernel = torch.exp(-torch.cdist(h, h).square() / (2 * 1.5**2))

    def error(orthogonal: bool) -> float:
        draws = [features(rank=40, orthogonal=orthogonal)(h) for _ in range(60)]
        return float(torch.stack([(phi @ phi.T - kernel).square().mean() for phi in draws]).mean())

    assert error(True) < error(False)


@pytest.mark.parametrize("rank", [3, 6, 14])
def test_columns_are_orthogonal_within_their_block(rank):
    omega = orthogonal_gaussian(6, rank)
    assert omega.shape == (6, rank)
    gram = omega[:, :6].T @ omega[:, :6]
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-5, rtol=0)


def test_column_lengths_are_those_of_gaussian_vectors():
    lengths = orthogonal_gaussian(20, 20_000).norm(dim=0)
    torch.testing.assert_close(lengths.square().mean(), torch.tensor(20.0), atol=0.3, rtol=0)
    torch.testing.assert_close(lengths.square().var(), torch.tensor(40.0), atol=2.0, rtol=0)


def test_layer_norm_and_length_scale_both_act():
    h = torch.randn(4, 10)
    torch.manual_seed(2)
    normed = features(layer_norm=True)
    torch.manual_seed(2)
    plain = features()
    centred = (h - h.mean(-1, keepdim=True)) / h.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(normed(h), plain(centred), atol=1e-4, rtol=1e-4)


def test_only_beta_learns_and_its_gradient_is_that_of_a_linear_layer():
    readout = RandomFeatureReadout(features(rank=32), 3)
    assert [name for name, _ in readout.named_parameters()] == ["beta.weight"]
    h = torch.randn(7, 10)
    cotangent = torch.randn(7, 3)
    readout(h).backward(cotangent)
    torch.testing.assert_close(readout.beta.weight.grad, cotangent.T @ readout.features(h))


def test_half_precision_does_not_reach_the_cosine():
    layer = features(rank=32)
    h = 100 * torch.randn(7, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(h), layer(h.clone()))
        inside = layer(h)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, layer(h))


def test_beta_asks_for_a_learning_rate_that_fits_the_features_size():
    assert RandomFeatureReadout(features(rank=1024, scaled=False), 3).beta.hints["weight"].lr == 32 / 512
    assert RandomFeatureReadout(features(rank=1024, scaled=True), 3).beta.hints["weight"].lr == 1.0
    assert not RandomFeatureReadout(features(), 3).beta.hints["weight"].decay
