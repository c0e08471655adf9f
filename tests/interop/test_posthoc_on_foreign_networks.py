"""Torchvision's and timm's networks: bounded, given a Gaussian-process head, Laplace-fitted, tempered, saved."""

import dataclasses

import pytest
import torch

import levelhead as lh
from levelhead.backbones.timm import Timm
from levelhead.backbones.torchvision import Torchvision
from levelhead.posthoc.laplace import Laplace
from levelhead.posthoc.temperature import Temperature
from levelhead.recipes.sngp import sngp
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.spectral_norm import Bounded
from levelhead.tasks.stripes import stripes

pytest.importorskip("torchvision", reason="needs torchvision: make test-interop")
pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop

BACKBONES = [Torchvision("resnet18"), Timm("resnet18")]
TASK = stripes(24, channels=3, size=32)


@pytest.fixture(params=BACKBONES, ids=["torchvision", "timm"])
def backbone(request):
    return request.param


def statistics(predictor: lh.Predictor) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in predictor.named_buffers()}


def unmoved_by_prediction(predictor: lh.Predictor) -> bool:
    before = statistics(predictor)
    predictor(next(iter(TASK.test.ordered(6))).x)
    return all(torch.equal(value, before[name]) for name, value in predictor.named_buffers())


def test_sngp(backbone, tmp_path):
    recipe = dataclasses.replace(sngp(backbone, rank=64), sampler=SGD(epochs=1, batch_size=12, lr=0.01))
    fitted = recipe.fit(TASK)
    assert sum(isinstance(module, Bounded) for module in fitted.modules()) == 20
    x = next(iter(TASK.test.ordered(6))).x
    assert fitted(x).probs.isfinite().all()
    assert unmoved_by_prediction(fitted)
    lh.save(fitted, tmp_path / "p")
    assert torch.equal(lh.load(tmp_path / "p")(x).logits, fitted(x).logits)


@pytest.mark.parametrize("structure", ["kronecker", "full", "diagonal"])
def test_laplace_tempered(backbone, structure):
    recipe = lh.Recipe(
        backbone=backbone,
        sampler=SGD(epochs=1, batch_size=12, lr=0.01),
        posthoc=(Laplace(structure=structure), Temperature()),
    )
    fitted = recipe.fit(TASK)
    assert fitted(next(iter(TASK.test.ordered(6))).x).probs.isfinite().all()
    assert unmoved_by_prediction(fitted)
