"""Gaussian weights: draws against explicit weights, KL against torch.distributions."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from levelhead.layers.gaussian_weights import ESTIMATORS, KINDS, GaussianWeights, gaussian_layer, softplus_inverse

PLAIN = {
    "linear": (lambda: nn.Linear(5, 3), (4, 5)),
    "tokens": (lambda: nn.Linear(5, 3), (4, 2, 5)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (4, 2, 6)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (4, 2, 5, 5)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False), (4, 2, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, dilation=2), (4, 1, 4, 4, 4)),
}
DRAWS = 1600
each_kind = pytest.mark.parametrize("kind", PLAIN)
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def made(kind: str, estimator: str = "flipout", init_scale: float = 0.5) -> tuple[GaussianWeights, Tensor]:
    """A layer with uneven standard deviations, and an input."""
    torch.manual_seed(0)
    make, shape = PLAIN[kind]
    layer = gaussian_layer(make(), estimator=estimator, init_scale=init_scale)
    with torch.no_grad():
        layer.weight_rho.add_(0.5 * torch.randn_like(layer.weight_rho))
    return layer, torch.randn(shape)


def explicit(layer: GaussianWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the outputs: the variance is a sum over weights, one explicit weight at a time."""
    plain = next(kind for kind, own in KINDS.items() if type(layer) is own)
    mean = layer.apply_weight(x, layer.weight, layer.bias)
    variance = torch.zeros_like(mean)
    assert issubclass(type(layer), plain)
    flat = layer.weight_std.flatten()
    for place in range(flat.numel()):
        one = torch.zeros_like(flat)
        one[place] = flat[place]
        variance += layer.apply_weight(x, one.view_as(layer.weight), None).square()
    if layer.bias is not None:
        shape = [1] * x.ndim
        shape[layer.channel_axis] = -1
        variance += layer.bias_std.square().reshape(shape)
    return mean, variance


def draws(layer: GaussianWeights, x: Tensor, count: int = DRAWS) -> Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return torch.stack([layer(x) for _ in range(count)])


@each_kind
@each_estimator
def test_the_moments_of_every_output_are_those_of_explicit_weights(kind, estimator):
    layer, x = made(kind, estimator)
    mean, variance = explicit(layer.train(), x)
    drawn = draws(layer, x)
    errors = (drawn.mean(0) - mean) / (variance / DRAWS).sqrt()
    assert errors.abs().max() < 5
    assert errors.square().mean() < 3  # outputs of one draw of the weights stray together
    assert_close(drawn.var(0), variance, rtol=0.2, atol=1e-6)  # five standard errors: 5 sqrt(2 / 1600) = 0.18


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_flipout_rows_are_uncorrelated_and_share_a_weight_at_their_places(kind):
    layer, x = made(kind, "flipout")
    x[1] = x[0]
    drawn = draws(layer.train(), x).flatten(2)
    centred = (drawn - drawn.mean(0)) / drawn.std(0)
    between = (centred[:, 0] * centred[:, 1]).mean(0)
    assert between.abs().max() < 5 / DRAWS**0.5
    shared = draws(made(kind, "shared")[0].train(), x).flatten(2)
    assert_close(shared[:, 0], shared[:, 1])


def test_places_of_a_row_move_together_under_flipout_and_apart_under_local():
    """Both see weight noise of the same size, but a draw of a convolution's outputs forgets that pixels share it."""
    shape = (1, 1, 2, 2)
    for estimator, wanted in (("flipout", 1.0), ("shared", 1.0), ("local", 0.0)):
        torch.manual_seed(0)
        layer = gaussian_layer(nn.Conv2d(1, 1, 1, bias=False), estimator=estimator, init_scale=0.5).train()
        drawn = draws(layer, torch.ones(shape)).flatten(1)
        correlation = torch.corrcoef(drawn.T)
        assert_close(correlation[0, 1], torch.tensor(wanted), atol=5 / DRAWS**0.5, rtol=0)


@each_kind
def test_at_rest_it_is_the_layer_to_the_bit(kind):
    torch.manual_seed(0)
    make, shape = PLAIN[kind]
    plain = make()
    layer = gaussian_layer(copy.deepcopy(plain), estimator="local", init_scale=0.3).eval()
    x = torch.randn(shape)
    assert torch.equal(layer(x), plain(x))
    assert {"weight", "weight_rho"} <= set(layer.state_dict())


@each_kind
def test_at_prediction_every_block_of_rows_has_one_weight(kind):
    layer, x = made(kind, "flipout")
    layer.eval()
    layer.sampling, layer.blocks = True, 2
    torch.manual_seed(3)
    weight = layer.weight + layer.weight_std * torch.randn_like(layer.weight)
    bias = None if layer.bias is None else layer.bias + layer.bias_std * torch.randn_like(layer.bias)
    torch.manual_seed(3)
    both = layer(torch.cat([x, x]))
    assert_close(both[: len(x)], layer.apply_weight(x, weight, bias))
    assert not torch.allclose(both[: len(x)], both[len(x) :])
    with pytest.raises(ValueError, match="blocks"):
        layer(x[:3])


@each_kind
@pytest.mark.parametrize("prior_scale", [0.3, 2.0])
def test_kl_is_that_of_torch_distributions(kind, prior_scale):
    layer, _ = made(kind)
    wanted = kl_divergence(Normal(layer.weight, layer.weight_std), Normal(0.0, prior_scale)).sum()
    if layer.bias is not None:
        wanted = wanted + kl_divergence(Normal(layer.bias, layer.bias_std), Normal(0.0, prior_scale)).sum()
    assert_close(layer.kl(prior_scale), wanted)


@each_kind
def test_the_empirical_prior_is_the_best_one(kind):
    layer, _ = made(kind)
    layer.bias = None  # one tensor, one scale
    best = layer.kl(None).detach()
    scale = (layer.weight.square() + layer.weight_std.square()).mean().sqrt().detach()
    assert_close(layer.kl(float(scale)), best)
    assert layer.kl(0.98 * float(scale)) > best
    assert layer.kl(1.02 * float(scale)) > best
    assert best >= 0


def test_standard_deviations_start_at_a_share_of_the_weights():
    torch.manual_seed(0)
    layer = gaussian_layer(nn.Linear(400, 300), estimator="local", init_scale=0.1)
    rms = layer.weight.detach().square().mean().sqrt()
    assert_close(layer.weight_std, torch.full_like(layer.weight, 0.1 * float(rms)))
    assert_close(layer.bias_std, torch.full_like(layer.bias, 0.1 * float(rms)))
    empty = nn.Linear(100, 3)
    nn.init.zeros_(empty.weight)
    assert_close(gaussian_layer(empty, estimator="local", init_scale=0.1).weight_std.mean(), torch.tensor(0.01))


def test_the_inverse_of_softplus_holds_for_small_and_large():
    for y in (1e-6, 1e-3, 0.5, 30.0):
        assert_close(nn.functional.softplus(torch.tensor(softplus_inverse(y), dtype=torch.float64)).item(), y)


def test_local_gradients_are_finite_where_inputs_are_zero():
    layer, x = made("linear", "local")
    layer.train()(torch.zeros_like(x)).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="ConvTranspose2d"):
        gaussian_layer(nn.ConvTranspose2d(2, 2, 2), estimator="local", init_scale=0.1)
