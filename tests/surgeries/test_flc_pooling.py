"""FLC pooling in whole networks: where it stands, what it keeps, and that what follows cannot alias."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.flc_pool import FLCPool2d
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.flc_pooling import FLCPooling
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.mean_field import MeanField
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.types import NoLayerReplaced

IMAGES = Signature((3, 32, 32), 10)


def num_parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def stage_shapes(network: Network) -> list[tuple[int, ...]]:
    return [call.output_shape for call in network.trace().calls if call.name.count(".") == 1]


def strides(network: Network) -> set[int]:
    return {max(layer.stride) for layer in network.layers(nn.Conv2d)}


BACKBONES = [
    (ResNet(depth=8, width=4), 2),
    (ResNet(depth=8, width=4, preact=True), 2),
    (ResNet(depth=18, stem="imagenet", width=4), 5),
    (ResNet(depth=50, stem="imagenet", width=2), 8),
    (LeNet(), 2),
    (VGG(depth=11, width=2), 5),
]


@pytest.mark.parametrize("size", [31, 32, 40])
@pytest.mark.parametrize("backbone, places", BACKBONES, ids=repr)
def test_sizes_parameters_and_weights_are_kept(backbone, places: int, size: int) -> None:
    signature = Signature((3, size, size), 10)
    network = backbone(signature)
    made = FLCPooling()(network)
    assert len(made.layers(FLCPool2d)) == places
    assert stage_shapes(made) == stage_shapes(network)
    assert num_parameters(made) == num_parameters(network)
    assert strides(made) == {1}
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in made.modules())
    after = {name.replace(".module.", "."): tensor for name, tensor in made.state_dict().items()}
    assert after.keys() == network.state_dict().keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in network.state_dict().items())


def test_both_branches_of_a_block_read_one_pooled_map() -> None:
    made = FLCPooling()(ResNet(depth=8, width=4)(IMAGES)).eval()
    block = made.features.stage2[0]
    x = torch.randn(2, 4, 32, 32)
    z = FLCPool2d()(x)
    body = block.module.body
    conv = F.conv2d(z, body.conv1.weight, padding=1)
    expected = body.norm2(body.conv2(body.act1(body.norm1(conv))))
    shortcut = block.module.shortcut.norm(F.conv2d(z, block.module.shortcut.conv.weight))
    assert_close(block(x), F.relu(expected + shortcut))


def test_preactivated_branches_read_the_pooled_activation() -> None:
    made = FLCPooling()(ResNet(depth=8, width=4, preact=True)(IMAGES)).eval()
    assert made.notes[-1].converted[:3] == (
        "features.stage2.0.entry.act",
        "features.stage2.0.body.conv1",
        "features.stage2.0.shortcut.conv",
    )
    entry = made.features.stage2[0].entry
    x = torch.randn(2, 4, 32, 32)
    assert_close(entry(x), FLCPool2d()(F.relu(entry.norm(x))))


def test_the_imagenet_stem() -> None:
    network = ResNet(depth=18, stem="imagenet", width=4)(IMAGES).eval()
    stem = FLCPooling()(network).eval().features.stem
    x = torch.randn(2, 3, 32, 32)
    old = network.features.stem
    z = F.relu(old.norm(F.conv2d(FLCPool2d()(x), old.conv.weight, padding=3)))
    assert_close(stem(x), FLCPool2d()(z))
    kept = FLCPooling(stem=False)(network)
    assert [name for name, _ in kept.notes[-1].skipped] == ["features.stem.conv", "features.stem.pool"]
    assert_close(kept.features.stem(x), old(x))


def test_kinds_can_be_left_out() -> None:
    network = ResNet(depth=18, stem="imagenet", width=4)(IMAGES)
    pools = FLCPooling(convolutions=False)(network)
    assert pools.notes[-1].converted == ("features.stem.pool",)
    assert len(pools.notes[-1].skipped) == 7
    assert "features.stem.pool" in dict(FLCPooling(pools=False)(network).notes[-1].skipped)


def test_options_reach_the_layers() -> None:
    made = FLCPooling(window="hamming", pad="double", nyquist="zero", impl="matrix")(ResNet(depth=8, width=4)(IMAGES))
    assert {(layer.window, layer.pad, layer.nyquist, layer.impl) for layer in made.layers(FLCPool2d)} == {
        ("hamming", "double", "zero", "matrix")
    }


def circular(network: Network) -> Network:
    for layer in network.layers(nn.Conv2d):
        pad = layer.padding
        layer.padding_mode = "circular"
        layer._reversed_padding_repeated_twice = [pad[1], pad[1], pad[0], pad[0]]
    return network.double().eval()


def half_pixel(y: Tensor) -> Tensor:
    """y moved down by half a pixel, as its own frequencies say."""
    size = y.shape[2]
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    return torch.fft.ifft2(torch.fft.fft2(y) * torch.polar(torch.ones_like(k), -math.pi * k / size)[:, None]).real


def test_a_shift_by_a_pixel_shifts_the_downsampled_map_by_half_of_one() -> None:
    """A circular convolution, ReLU, and the step: exact with FLC, which ReLU before it does not spoil."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1))
    network = Network(nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(8, 10), IMAGES, width=8)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    errors = []
    for made in (network.copy(), FLCPooling(nyquist="zero")(network)):
        step = circular(made).features[0]
        y, moved = step(x).detach(), step(x.roll(1, 2)).detach()
        errors.append(float((moved - half_pixel(y)).norm() / (y - y.mean()).norm()))
    assert errors[0] > 0.3
    assert errors[1] < 1e-13


def test_before_and_after_surgeries_that_give_members_or_draws() -> None:
    x = IMAGES.example(4)
    for surgery in (BatchEnsemble(2), HyperBatch(2), MeanField()):
        torch.manual_seed(0)
        first = FLCPooling()(surgery(ResNet(depth=8, width=4)(IMAGES))).eval()
        torch.manual_seed(0)
        last = surgery(FLCPooling()(ResNet(depth=8, width=4)(IMAGES))).eval()
        assert len(first.layers(FLCPool2d)) == len(last.layers(FLCPool2d)) == 2
        assert strides(first) == strides(last) == {1}
        assert_close(first(x), last(x))


def test_bounds_measured_on_strided_maps_stay_with_advice() -> None:
    made = FLCPooling()(SpectralNorm()(ResNet(depth=8, width=4)(IMAGES)))
    assert [name for name, _ in made.notes[-1].skipped] == [
        "features.stage2.0.body.conv1",
        "features.stage3.0.body.conv1",
    ]
    assert made(IMAGES.example()).shape == (1, 2, 10)
    assert SpectralNorm()(FLCPooling()(ResNet(depth=8, width=4)(IMAGES)))(IMAGES.example()).shape == (1, 2, 10)


@pytest.mark.parametrize("size", [16, 17])
def test_paddings_that_do_not_keep_the_size(size: int) -> None:
    signature = Signature((3, size, size), 10)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, (2, 1)), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 1, 2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = Network(nn.Sequential(*layers), nn.Linear(8, 10), signature, width=8)
    made = FLCPooling()(network)
    assert len(made.layers(FLCPool2d)) == 3
    assert stage_shapes(made) == stage_shapes(network)
    odd = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 2, padding_mode="reflect"), nn.Flatten())
    wide = Network(odd, nn.Linear(4 * ((size - 3) // 2) ** 2, 10), signature)
    with pytest.raises(NoLayerReplaced, match="it pads by 'reflect'"):
        FLCPooling()(wide)


def test_patches_and_networks_without_steps() -> None:
    tokens = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten())
    with pytest.raises(NoLayerReplaced, match="a patch embedding"):
        FLCPooling()(Network(tokens, nn.Linear(512, 10), IMAGES))
    with pytest.raises(NoLayerReplaced, match="FLCPooling found nothing"):
        FLCPooling()(MLP()(Signature(input_shape=(5,))))


def test_validation() -> None:
    for name in ("nyquist", "pad", "window", "impl", "legacy"):
        with pytest.raises(ValueError, match=f"FLCPooling: {name} must be one of .*; got 'other'"):
            FLCPooling(**{name: "other"})
    with pytest.raises(ValueError, match="convolutions and pools are both False"):
        FLCPooling(convolutions=False, pools=False)
    with pytest.raises(ValueError, match="impl='fft' is for pad, window and legacy None"):
        FLCPooling(impl="fft", window="hamming")
