"""What every backbone must do with its default fields, on images or on tables; absent extras are named."""

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from contracts.styles import name, specs
from torch import nn
from torch.testing import assert_close

from levelhead.likelihood import Categorical, Gaussian, Signature
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.types import MissingExtra
from levelhead.values import from_json, to_json

BACKBONES = specs("backbones")
each_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=name)
IMAGES = Signature((1, 28, 28), 10, Categorical(10), (0.3,), (0.4,))
TABLE = Signature((6,), 2, Gaussian(), (0.5,) * 6, (2.0,) * 6)


@cache
def networks(backbone: Any) -> dict[str, tuple[Network, torch.Tensor]]:
    """Networks and inputs for the signatures that a backbone takes; empty where its extra is missing."""
    found, refusals = {}, []
    for kind, signature in {"images": IMAGES, "table": TABLE}.items():
        try:
            with seeded(0):
                network = backbone(signature).eval()
        except (MissingExtra, ValueError) as error:
            refusals.append(str(error))
        else:
            found[kind] = network, torch.rand(2, *signature.input_shape)
    told = ("pip install", str(IMAGES.input_shape), str(TABLE.input_shape))  # what to install, or what it cannot read
    assert all(any(words in text for words in told) for text in refusals), refusals
    assert found or all("pip install" in text for text in refusals), refusals
    return found


def large(network: Network) -> bool:
    """Too large for seconds: the same layers, more of them; tests/backbones meets these at smaller sizes."""
    return sum(p.numel() for p in network.parameters()) > 20e6


@each_backbone
def test_outputs_have_the_signatures_shape(backbone):
    for kind, (network, x) in networks(backbone).items():
        assert network.signature in (IMAGES, TABLE)
        outputs = network(x)
        assert outputs.shape == (1, 2, network.num_outputs), kind
        assert outputs.isfinite().all(), kind
        assert large(network) or network.embed(x).shape == (1, 2, network.width), kind
        assert (network.num_members, network.num_samples, network.notes) == (1, 1, ()), kind


@each_backbone
def test_the_head_comes_last_and_acts_on_the_last_axis_only(backbone):
    for kind, (network, x) in networks(backbone).items():
        if large(network):
            continue
        z = network.embed(x)
        assert_close(network.read(z), network(x), rtol=1e-4, atol=1e-4, msg=kind)
        alone = torch.cat([network.read(z[:, k : k + 1]) for k in range(2)], dim=1)
        assert_close(alone, network(x), rtol=1e-4, atol=1e-4, msg=kind)


@each_backbone
def test_rows_do_not_depend_on_their_company_at_prediction(backbone):
    for kind, (network, x) in networks(backbone).items():
        if large(network):
            continue
        assert_close(network(x[:1]), network(x)[:, :1], rtol=1e-3, atol=1e-4, msg=kind)


@each_backbone
def test_inputs_are_raw(backbone):
    """The statistics of the signature are inside: moving them moves the outputs."""
    for network, x in networks(backbone).values():
        signature = network.signature
        if large(network):
            continue
        with seeded(0):
            other = backbone(dataclasses.replace(signature, mean=tuple(m + 1 for m in signature.mean))).eval()
        assert not torch.allclose(other(x), network(x))
        assert_close(other(x + 1), network(x), rtol=1e-2, atol=1e-3)


@each_backbone
def test_every_parameter_gets_a_gradient(backbone):
    for kind, (network, x) in networks(backbone).items():
        if large(network):
            continue
        network.train()
        outputs = network(x.repeat(2, *(1,) * (x.ndim - 1)))
        y = outputs.argmin(-1)[0] if kind != "table" else torch.randn(4, 1)
        network.likelihood.loss(outputs, y).backward()
        idle = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
        network.zero_grad(set_to_none=True)
        network.eval()
        assert not idle, f"{kind}: {idle}"


@each_backbone
def test_the_seed_decides_the_weights(backbone):
    for kind, (network, _) in networks(backbone).items():
        if large(network):
            continue
        with seeded(0):
            same = backbone(network.signature)
        for key, tensor in same.state_dict().items():
            if "running" not in key and "num_batches" not in key:
                assert torch.equal(tensor, network.state_dict()[key]), f"{kind}: {key}"


@each_backbone
def test_normalisation_layers_follow_the_mode(backbone):
    for network, _ in networks(backbone).values():
        kinds = nn.modules.batchnorm._BatchNorm
        assert not any(m.training for m in network.modules() if isinstance(m, kinds))
        assert all(m.training for m in network.train().modules())
        network.eval()


@each_backbone
def test_it_is_a_plain_value(backbone):
    assert hash(backbone) == hash(type(backbone)())
    assert from_json(to_json(backbone)) == backbone
