"""The curriculum in a network and through a fit."""

import pytest
import torch

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.smoothing_curriculum import SmoothingCurriculum
from levelhead.likelihood import Signature
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.surgeries.curriculum_by_smoothing import CurriculumBySmoothing
from levelhead.tasks.stripes import stripes
from levelhead.types import NoLayerReplaced

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)
TASK = stripes(n=48)


def test_every_convolution_of_the_main_path_is_smoothed_from_the_start() -> None:
    network = ResNet(depth=8)(IMAGES).eval()
    x = IMAGES.example(3)
    made = CurriculumBySmoothing()(network)
    assert len(made.layers(SmoothingCurriculum)) == 7
    assert not torch.allclose(made(x), network(x))
    for layer in made.layers(SmoothingCurriculum):
        layer.to_epoch(400)
    assert torch.equal(made(x), network(x))


def test_after_a_fit_the_last_width_is_used_and_saved(tmp_path) -> None:
    surgery = CurriculumBySmoothing(factor=0.5, every=2)
    recipe = Recipe(
        backbone=ResNet(depth=8, width=4), surgery=(surgery,), sampler=SGD(epochs=4, batch_size=16, lr=0.02)
    )
    predictor = recipe.fit(TASK, 0, rehearsed=True)
    assert {layer.known for layer in next(predictor.networks()).layers(SmoothingCurriculum)} == {0.5}
    restored = load(save(predictor, tmp_path / "predictor"))
    assert torch.equal(restored(TASK.test.x / 255).log_probs, predictor(TASK.test.x / 255).log_probs)


def test_without_filters_at_prediction_the_state_is_the_plain_networks() -> None:
    network = ResNet(depth=8)(IMAGES)
    made = CurriculumBySmoothing(eval_mode="identity")(network).eval()
    assert {name.replace(".module.", ".") for name in made.state_dict()} == set(network.state_dict())
    assert torch.equal(made(IMAGES.example(2)), network.eval()(IMAGES.example(2)))


def test_validation() -> None:
    wrong = {"sigma0": -1.0, "factor": 1.5, "every": 0, "kernel_size": 4, "eval_mode": "sample", "where": "all"}
    for name, value in {**wrong, "padding": "same"}.items():
        with pytest.raises(ValueError, match=f"CurriculumBySmoothing: {name}"):
            CurriculumBySmoothing(**{name: value})
    with pytest.raises(NoLayerReplaced, match="CurriculumBySmoothing found nothing"):
        CurriculumBySmoothing()(MLP()(Signature(input_shape=(5,))))
