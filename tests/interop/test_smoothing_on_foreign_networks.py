"""Smoothing and anti-aliasing on torchvision's and timm's networks: weights kept, trained, saved, compiled, halved."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from levelhead.backbones.factory import Factory
from levelhead.backbones.timm import Timm
from levelhead.backbones.torchvision import Torchvision
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network, build
from levelhead.passes import seeded
from levelhead.predictor import Point
from levelhead.storage import load, save
from levelhead.surgeries.alias_free import AliasFree
from levelhead.surgeries.blur_pool import BlurPool
from levelhead.surgeries.curriculum_by_smoothing import CurriculumBySmoothing
from levelhead.surgeries.flc_pooling import FLCPooling
from levelhead.surgeries.frequency_dropout import FrequencyDropout
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.types import NoLayerReplaced

models = pytest.importorskip("torchvision.models", reason="needs torchvision: make test-interop")
pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop

SIGNATURE = Signature((3, 64, 64), 10, Categorical(10), (0.4,) * 3, (0.2,) * 3)
X, Y = SIGNATURE.example(4), torch.arange(4)
HALF = 0.05  # of the outputs' length


def vgg(in_channels: int, num_classes: int) -> nn.Module:
    """torchvision's VGG-11 with batch norm, without its hidden layers of a hundred million weights."""
    convolutions = models.vgg11_bn().features
    return nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))


NETWORKS = {
    "torchvision resnet18": Torchvision("resnet18"),
    "torchvision vgg11_bn": Factory("interop.test_smoothing_on_foreign_networks:vgg", head="3"),
    "torchvision mobilenet_v2": Torchvision("mobilenet_v2"),
    "torchvision densenet121": Torchvision("densenet121"),
    "torchvision convnext_tiny": Torchvision("convnext_tiny"),
    "timm resnet18": Timm("resnet18", options={"zero_init_last": False}),
    "timm convnext_atto": Timm("convnext_atto"),
    "timm efficientnet_b0": Timm("efficientnet_b0"),
}
SURGERIES = [
    SpatialSmoothing(),
    FrequencyDropout(),
    FrequencyDropout(eval_mode="sample", num_samples=2),
    CurriculumBySmoothing(),
    FLCPooling(),
    BlurPool(),
    AliasFree(),
]


def label(surgery: Any) -> str:
    return f"{type(surgery).__name__}-{getattr(surgery, 'eval_mode', '')}".strip("-")


def made(name: str, *surgeries: Any) -> Network:
    with seeded(0):
        return build(NETWORKS[name], surgeries, SIGNATURE)


def statistics(network: Network) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("surgery", SURGERIES, ids=label)
def test_on_somebody_elses_network(surgery: Any, name: str, tmp_path) -> None:
    plain, network = made(name), made(name, surgery)
    assert network.notes[-1].converted
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):  # none added, none changed
        assert torch.equal(ours, theirs)

    network.train()
    before = statistics(network)
    outputs = network(X)
    assert outputs.shape == (1, 4, 10)
    network.likelihood.loss(outputs, Y).backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not idle
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    after = statistics(network)
    assert sum(not torch.equal(after[key], before[key]) for key in before) == 3 * norms

    predictor = Point(network).eval()
    with torch.no_grad():
        belief = predictor(X)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(X)
        full = network(X)
    assert belief.probs.isfinite().all()
    held = statistics(network)
    assert all(torch.equal(held[key], after[key]) for key in after)
    assert half.dtype == torch.bfloat16
    assert (half - full).norm() < HALF * full.norm()

    loaded = load(save(predictor, tmp_path / "predictor"), trust=("interop",))
    with torch.no_grad():
        assert torch.equal(loaded(X).logits, belief.logits)


@pytest.mark.parametrize("surgery", SURGERIES, ids=label)
def test_compiled_into_one_graph_it_trains_and_predicts_as_before(surgery: Any) -> None:
    twins = [made("torchvision resnet18", surgery).train() for _ in range(2)]
    torch.compiler.reset()
    calls = (twins[0], torch.compile(twins[1], backend="eager", fullgraph=True))
    for network, call in zip(twins, calls, strict=True):
        with seeded(1):
            network.likelihood.loss(call(X), Y).backward()
    for ours, theirs in zip(twins[1].parameters(), twins[0].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    expected, got = (call(X) for call in (twins[0].eval(), torch.compile(twins[1].eval(), backend="eager")))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "surgery, reason",
    [
        (SpatialSmoothing(), "doctor"),
        (FLCPooling(), "a patch embedding reads pixels"),
        (BlurPool(), "a patch embedding reads pixels"),
        (AliasFree(), "patches, not samples of a map"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_only_reads_patches_is_refused_with_the_reason(surgery: Any, reason: str) -> None:
    options = {"img_size": 64, "patch_size": 16, "depth": 1}
    tokens = Timm("vit_tiny_patch16_224", options=options)(SIGNATURE).eval()
    with pytest.raises(NoLayerReplaced, match=reason):
        surgery(tokens)
