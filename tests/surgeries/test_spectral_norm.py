"""The bound against the singular values of the layer written out as a matrix."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.passes import keeping_statistics
from levelhead.surgeries.spectral_norm import Bounded, BoundedConv2d, SpectralNorm, bound
from levelhead.types import NoLayerReplaced

SIGNATURE = Signature(input_shape=(3, 9, 9), num_outputs=4)


def matrix(layer: nn.Conv2d, weight: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The convolution as a dense matrix: what it makes of every unit image."""
    units = torch.eye(layer.in_channels * height * width, dtype=weight.dtype)
    images = units.reshape(-1, layer.in_channels, height, width)
    plain = copy.deepcopy(layer)
    plain.__class__ = nn.Conv2d
    plain.weight.data, plain.bias = weight.detach(), None
    return plain(images).reshape(len(units), -1).T.detach()


def bounded_layers(network: Network) -> list[Bounded]:
    return [layer for layer in network.modules() if isinstance(layer, Bounded)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 7), (5, 5)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_operator_norm_of_a_convolution_is_its_largest_singular_value(stride, size, groups, padding_mode):
    layer = nn.Conv2d(2, 4, 3, stride, padding=1, groups=groups, padding_mode=padding_mode, dtype=torch.float64)
    true = torch.linalg.matrix_norm(matrix(layer, layer.weight, *size), 2)
    layer = bound(layer, (1, 2, *size), norm_bound=0.5 * float(true), steps=1, norm="operator")
    layer.iterate(1000)
    torch.testing.assert_close(layer.sigma(), true, rtol=1e-3, atol=0)
    bounded = torch.linalg.matrix_norm(matrix(layer, layer.bounded_weight(), *size), 2)
    torch.testing.assert_close(bounded, 0.5 * true, rtol=1e-3, atol=0)


def test_reshaped_norm_is_that_of_the_kernel_as_a_matrix_and_smaller():
    layer = nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64)
    reshaped = bound(copy.deepcopy(layer), (1, 3, 12, 12), norm_bound=1.0, steps=1, norm="reshaped")
    operator = bound(copy.deepcopy(layer), (1, 3, 12, 12), norm_bound=1.0, steps=1, norm="operator")
    reshaped.iterate(500)
    operator.iterate(500)
    expected = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    torch.testing.assert_close(reshaped.sigma(), expected, rtol=1e-9, atol=0)
    assert reshaped.sigma() <= operator.sigma() <= 3 * reshaped.sigma()  # sqrt of 9 taps


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_kernels_are_measured_on_one_pixel(stride):
    layer = nn.Conv2d(5, 7, 1, stride, dtype=torch.float64)
    layer = bound(layer, (1, 5, 8, 8), norm_bound=1.0, steps=1, norm="operator")
    assert layer.v.shape == (1, 5, 1, 1)
    layer.iterate(500)
    torch.testing.assert_close(layer.sigma(), torch.linalg.matrix_norm(matrix(layer, layer.weight, 8, 8), 2))


def test_the_estimate_is_below_the_norm_and_does_not_fall():
    layer = bound(nn.Linear(20, 30, dtype=torch.float64), (1, 20), norm_bound=1.0, steps=1, norm="operator")
    true = torch.linalg.matrix_norm(layer.weight.detach(), 2)
    estimates = []
    for _ in range(50):
        layer.iterate(1)
        estimates.append(float(layer.sigma().detach()))
    assert all(before <= after + 1e-12 for before, after in pairwise(estimates))
    assert estimates[-1] <= true + 1e-12


def test_a_weight_within_the_bound_is_left_alone_to_the_bit():
    layer = bound(nn.Linear(6, 6), (1, 6), norm_bound=100.0, steps=1, norm="operator")
    assert torch.equal(layer.bounded_weight(), layer.weight)
    nn.init.zeros_(layer.weight)
    assert torch.equal(layer.bounded_weight(), layer.weight)


def test_the_gradient_goes_through_sigma():
    layer = bound(nn.Linear(4, 3, dtype=torch.float64), (1, 4), norm_bound=0.1, steps=1, norm="operator").eval()
    x = torch.randn(5, 4, dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        sigma = (layer.u @ weight @ layer.v.T).squeeze()
        return (x @ (weight * 0.1 / sigma).T).square().sum()

    (layer(x) - layer.bias).square().sum().backward()
    expected = torch.autograd.functional.jacobian(loss, layer.weight.detach())
    torch.testing.assert_close(layer.weight.grad, expected)


def test_only_training_passes_that_track_statistics_move_u_and_v():
    network = SpectralNorm(norm_bound=0.1)(ResNet(depth=8)(SIGNATURE))
    x = SIGNATURE.example(3)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def moved() -> set[str]:
        return {name.rpartition(".")[2] for name, b in network.named_buffers() if not torch.equal(b, before[name])}

    network.eval()(x)
    assert moved() == set()
    network.train()
    with keeping_statistics(network):
        network(x)
    assert moved() == set()
    held = network.features.stem.conv.v
    values = held.clone()
    network(x)
    assert moved() >= {"u", "v"}
    assert torch.equal(held, values)  # a new buffer: the old one, which a graph may hold, was not written to


def test_features_only_and_the_argument_is_untouched():
    plain = ResNet(depth=8)(SIGNATURE)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    network = SpectralNorm()(plain)
    assert type(network.head) is nn.Linear
    assert len(bounded_layers(network)) == 9
    assert bounded_layers(plain) == []
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert set(plain.state_dict()) <= set(network.state_dict())  # checkpoints of the plain network load


def test_a_wide_bound_changes_no_output():
    plain = ResNet(depth=8)(SIGNATURE).eval()
    x = SIGNATURE.example(3)
    assert torch.equal(SpectralNorm(norm_bound=1e6)(plain)(x), plain(x))


def test_training_a_network_brings_every_layer_under_the_bound():
    network = SpectralNorm(norm_bound=0.7, power_steps=20)(MLP(hidden=(30, 20))(Signature(input_shape=(6,)))).train()
    for _ in range(20):
        network(torch.rand(8, 6))
    for layer in bounded_layers(network):
        assert torch.linalg.matrix_norm(layer.bounded_weight(), 2) <= 0.7 * (1 + 1e-3)


def test_the_bound_serves_images_of_another_size():
    network = SpectralNorm(norm_bound=0.1)(ResNet(depth=8)(SIGNATURE)).train()
    assert network(torch.rand(2, 3, 16, 16)).shape == (1, 2, 4)


def test_shared_layers_stay_shared_and_flags_stay():
    linear = nn.Linear(6, 6)
    linear.weight.requires_grad_(False)
    network = Network(nn.Sequential(linear, nn.ReLU(), linear), nn.Linear(6, 2), Signature(input_shape=(6,)))
    bounded = SpectralNorm()(network).features
    assert bounded[0] is bounded[2]
    assert not bounded[0].weight.requires_grad


def test_layers_with_a_forward_of_their_own_are_reported_not_scaled():
    class Standardised(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight / self.weight.norm(), self.bias)

    network = Network(nn.Sequential(Standardised(6, 6), nn.Linear(6, 6)), nn.Linear(6, 2), Signature(input_shape=(6,)))
    note = SpectralNorm()(network).notes[-1]
    assert note.converted == ("features.1",)
    assert [name for name, _ in note.skipped] == ["features.0"]


def test_nothing_to_bound_is_an_error():
    network = Network(nn.Sequential(nn.Flatten()), nn.Linear(6, 2), Signature(input_shape=(6,)))
    with pytest.raises(NoLayerReplaced, match="SpectralNorm"):
        SpectralNorm()(network)


def test_twice_keeps_the_tighter_bound():
    network = SpectralNorm(norm_bound=3.0)(SpectralNorm(norm_bound=2.0)(ResNet(depth=8)(SIGNATURE)))
    assert {layer.norm_bound for layer in bounded_layers(network)} == {2.0}


def test_a_copy_is_independent_and_equal():
    network = SpectralNorm(norm_bound=0.1)(ResNet(depth=8)(SIGNATURE))
    twin = network.copy()
    assert isinstance(twin.features.stem.conv, BoundedConv2d)
    assert torch.equal(twin.eval()(SIGNATURE.example(2)), network.eval()(SIGNATURE.example(2)))


@pytest.mark.parametrize("wrong", [{"norm_bound": 0.0}, {"power_steps": 0}, {"norm": "frobenius"}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpectralNorm(**wrong)
