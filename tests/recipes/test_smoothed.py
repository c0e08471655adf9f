"""Spatial smoothing with dropout and in ensembles, as recipes."""

import dataclasses

import torch

import levelhead as lh
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.dropout import Dropout
from levelhead.layers.smooth import Smooth
from levelhead.recipes.smoothed_ensembles import smoothed_ensembles
from levelhead.recipes.smoothed_mc_dropout import smoothed_mc_dropout
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.text import parse
from levelhead.values import get_path

TASK = lh.load_task("fashion-mini")


def test_dropout_stands_where_the_authors_put_it() -> None:
    for backbone, places in (
        (ResNet(depth=8, width=4), [f"features.stage{i}.0.body.conv2" for i in (1, 2, 3)]),
        (VGG(width=2), [f"features.stage{i}.act{j}" for i, n in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 2))
                        for j in range(1, n + 1)]),
    ):  # fmt: skip
        network = smoothed_mc_dropout(backbone).build(TASK)
        assert [name.replace(".module", "") for name in network.notes[-1].converted] == places
        assert {layer.p for layer in network.layers(Dropout)} == {0.3}
        assert len(network.layers(Smooth)) == 5 - 2 * isinstance(backbone, ResNet)
        assert network.num_samples == 2


def test_training_is_the_authors() -> None:
    sampler = smoothed_mc_dropout(ResNet()).sampler
    assert sampler == smoothed_ensembles(ResNet()).member.sampler
    assert (sampler.lr, sampler.momentum, sampler.weight_decay, sampler.epochs) == (0.1, 0.9, 5e-4, 200)
    assert (sampler.schedule, sampler.warmup_epochs, sampler.nesterov) == ("step", 1.0, False)


def test_an_ensemble_of_smoothed_networks() -> None:
    recipe = parse("resnet8 + smoothed_ensembles(size=3, temperature=6.0)")
    assert recipe == smoothed_ensembles(ResNet(depth=8), size=3, temperature=6.0)
    assert get_path(recipe, "member.surgery.spatial_smoothing") == SpatialSmoothing(temperature=6.0)
    short = dataclasses.replace(recipe.shortened(), size=2)
    predictor = short.fit(TASK.dry(8), 0, rehearsed=True)
    with torch.no_grad():
        assert predictor(next(iter(TASK.test.ordered(3))).x).logits.shape == (2, 3, 10)
    assert all(network.layers(Smooth) for network in predictor.networks())
