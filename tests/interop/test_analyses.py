"""Analyses of networks that timm and torchvision wrote: blocks, profiles, lesions, aliasing."""

import pytest
import torch

from levelhead.analyses.aliasing import aliasing_by_layer
from levelhead.analyses.blocks import blocks
from levelhead.analyses.fourier import fourier_profile
from levelhead.analyses.lesion import units, without

timm = pytest.importorskip("timm", reason="needs timm: make test-interop")
torchvision = pytest.importorskip("torchvision", reason="needs torchvision: make test-interop")

pytestmark = pytest.mark.interop
CONV, ATTN, MLP = "convolution", "attention", "mlp"
KNOWN = {  # size of images, kinds of the first three blocks behind the stem, how many blocks
    "resnet18": (64, [CONV] * 3, 8),
    "convnext_atto": (64, [CONV] * 3, 12),
    "efficientnet_b0": (64, [CONV] * 3, 9),
    "vit_tiny_patch16_224": (224, [ATTN, MLP, ATTN], 24),
    "swin_tiny_patch4_window7_224": (224, [ATTN, MLP, ATTN], 24),
    "mixer_s32_224": (224, [MLP] * 3, 16),
}


@pytest.mark.parametrize("name", KNOWN)
def test_timms_networks_have_the_blocks_that_they_should(name):
    size, kinds, count = KNOWN[name]
    network, x = timm.create_model(name, num_classes=5).eval(), torch.rand(2, 3, size, size)
    found = blocks(network, x)
    assert [block.kind for block in found[1:4]] == kinds
    assert len(found) == count + 1
    profiles = fourier_profile(network, x)
    assert len(profiles) >= 5
    assert all(torch.tensor(profile.amplitude).isfinite().all() for profile in profiles)
    with torch.no_grad():
        before = network(x)
        for unit in units(network, x)[0][::5]:
            with without(network, unit):
                network(x)
        assert torch.equal(network(x), before)


@pytest.mark.parametrize("name, size, count", [("resnet18", 64, 8), ("vit_b_16", 224, 24), ("swin_t", 224, 24)])
def test_torchvisions_networks_too(name, size, count):
    network = torchvision.models.get_model(name).eval()
    assert len(blocks(network, torch.rand(2, 3, size, size))) == count + 1


def test_every_step_of_a_resnet_is_measured():
    network = torchvision.models.resnet18().eval()
    found = aliasing_by_layer(network, torch.rand(2, 3, 64, 64))
    assert list(found)[:2] == ["conv1", "maxpool"]
    assert len(found) == 2 + 2 * 3
    assert all(layer.absolute > 0 for layer in found.values())
