"""Frequency dropout in networks: what it leaves alone, what a fit does with it, and the rules of prediction."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.declared import Pace, Paced
from levelhead.doctor import examine
from levelhead.layers.frequency_dropout import FrequencyFilters, RandomFilters
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.frequency_dropout import FrequencyDropout
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.tasks.stripes import stripes
from levelhead.training import Runtime
from levelhead.types import NoLayerReplaced

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)
TASK = stripes(n=48)
X = TASK.test.x / 255
SMALL = SGD(epochs=3, batch_size=16, lr=0.02)
OFF = {"gaussian_p": 1.0, "log_p": 1.0, "gabor_p": 1.0}
BACKBONES = [ResNet(depth=8, width=8), ResNet(depth=8, width=8, preact=True), LeNet(), VGG(depth=11, width=4)]


def paced(network: Network, seed: int, epoch: int = 0) -> Network:
    for layer in network.layers(Paced):
        layer.pace(Pace(epoch, 0, seed, seed + 1))
    return network


def plain_keys(network: Network) -> set[str]:
    return {name.replace(".module.", ".") for name in network.state_dict()}


@pytest.mark.parametrize("backbone", BACKBONES, ids=repr)
def test_without_filtered_channels_outputs_and_gradients_are_the_plain_networks(backbone: Any) -> None:
    network = backbone(IMAGES)
    made = paced(FrequencyDropout(**OFF)(network), 0)
    x, y = IMAGES.example(4), torch.arange(4)
    grads = []
    for each in (network.train(), made.train()):
        F.cross_entropy(each(x)[0], y).backward()
        grads.append([p.grad for p in each.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert torch.equal(made.eval()(x), network.eval()(x))
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("backbone", BACKBONES, ids=repr)
def test_training_depends_on_the_draw_and_prediction_without_filters_does_not(backbone: Any) -> None:
    network = backbone(IMAGES)
    made = FrequencyDropout(eval_mode="identity")(network)
    assert plain_keys(made) == set(network.state_dict())
    x = IMAGES.example(8)
    first, again, other = (paced(made, seed).train()(x) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    made = FrequencyDropout(eval_mode="identity")(network).eval()
    outputs = made(x)
    torch.manual_seed(9)
    assert torch.equal(paced(made, 3)(x), outputs)
    assert torch.equal(outputs, network.eval()(x))


def test_last_filters_are_part_of_the_state_where_prediction_uses_them() -> None:
    network = ResNet(depth=8)(IMAGES)
    made = FrequencyDropout()(network)
    extra = plain_keys(made) - set(network.state_dict())
    assert len(extra) == 7
    assert all(name.endswith(".after.kernel") for name in extra)
    other = FrequencyDropout()(network)
    other.load_state_dict(paced(made, 5).state_dict())
    x = IMAGES.example(2)
    assert torch.equal(other.eval()(x), made.eval()(x))
    assert not torch.equal(other(x), network.eval()(x))


def test_both_convolutions_of_a_block_share_their_widths_unless_told_not_to() -> None:
    for tie in (True, False):
        first, second = paced(FrequencyDropout(tie=tie)(ResNet(depth=8)(IMAGES)), 4).layers(RandomFilters)[1:3]
        assert torch.equal(first.kernel, second.kernel) is tie


def test_filters_stand_between_convolution_and_norm() -> None:
    made = paced(FrequencyDropout()(ResNet(depth=8)(IMAGES)), 4).train()
    stem = made.features.stem
    x = torch.rand(2, 3, 8, 8)
    z = F.conv2d(stem.conv.module(x), stem.conv.after.kernel, padding=1, groups=16)
    assert_close(stem(x), F.relu(F.batch_norm(z, None, None, stem.norm.weight, stem.norm.bias, training=True)))


class Killed(Exception):
    pass


class Dying(SGD):
    """SGD that dies at a step, once."""

    left = 0

    def step(self, state: Any, objective: Any, batch: Any) -> Any:
        type(self).left -= 1
        if type(self).left == 0:
            raise Killed
        return super().step(state, objective, batch)


@pytest.mark.parametrize("resample, eval_mode", [("epoch", "frozen"), ("step", "identity")])
def test_a_killed_fit_goes_on_to_the_bit(resample: str, eval_mode: str, tmp_path: Path) -> None:
    surgery = FrequencyDropout(resample=resample, eval_mode=eval_mode, anneal=(1, 4))
    recipe = Recipe(backbone=ResNet(depth=8, width=4), surgery=(surgery,), sampler=SMALL)
    whole = recipe.fit(TASK, 2, rehearsed=True)
    runtime = Runtime(folder=tmp_path, checkpoint_seconds=0)
    Dying.left = 6  # in the middle of the second epoch
    with pytest.raises(Killed):
        dataclasses.replace(recipe, sampler=Dying(**vars(SMALL))).fit(TASK, 2, runtime, rehearsed=True)
    resumed = recipe.fit(TASK, 2, runtime, rehearsed=True)
    state = whole.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in resumed.state_dict().items())
    assert torch.equal(resumed(X).log_probs, whole(X).log_probs)


@pytest.mark.parametrize("eval_mode", ["frozen", "identity", "sample"])
def test_a_saved_predictor_predicts_the_same(eval_mode: str, tmp_path: Path) -> None:
    recipe = Recipe(
        backbone=ResNet(depth=8, width=4),
        surgery=(FrequencyDropout(eval_mode=eval_mode, num_samples=3),),
        sampler=SMALL,
    )
    predictor = recipe.fit(TASK, 1, rehearsed=True)
    belief = predictor(X)
    assert belief.log_weights.shape == ((3,) if eval_mode == "sample" else (1,))
    assert torch.equal(load(save(predictor, tmp_path / "p"))(X).log_probs, belief.log_probs)
    fitted = next(predictor.networks()).layers(FrequencyFilters)
    assert all(layer.known is not None for layer in fitted)


def test_fresh_filters_for_every_sample_make_a_mixture_as_mc_dropout_does() -> None:
    made = FrequencyDropout(eval_mode="sample", num_samples=4)(ResNet(depth=8)(IMAGES)).eval()
    assert made.num_samples == 4
    x = IMAGES.example(3)
    assert torch.equal(made(x), made(x))  # at rest nothing draws
    torch.manual_seed(0)
    drawn = made(x, num_samples=4)
    assert drawn.shape == (4, 3, 10)
    assert all(not torch.allclose(drawn[i], drawn[j]) for i in range(4) for j in range(i))
    torch.manual_seed(0)
    assert torch.equal(made(x, num_samples=4), drawn)
    torch.manual_seed(0)
    assert_close(made(x, num_samples=2), drawn[:2], rtol=1e-4, atol=1e-5)
    both = MCDropout(num_samples=6)(made).eval()
    assert both(x, num_samples=2).shape == (2, 3, 10)
    assert both.num_samples == 6


@pytest.mark.parametrize("eval_mode", ["frozen", "identity", "sample"])
def test_the_doctor_finds_nothing_wrong(eval_mode: str) -> None:
    surgery = FrequencyDropout(eval_mode=eval_mode)
    assert surgery.exact_at_rest is (eval_mode != "frozen")
    found = examine(ResNet(depth=8, width=8)(IMAGES), (surgery,))
    assert found.healthy, str(found)


def test_samples_take_one_family_for_the_whole_network() -> None:
    """Each pass equals one whose layers are all given the kernels of the pass's seed."""
    made = FrequencyDropout(eval_mode="sample")(ResNet(depth=8)(IMAGES)).eval()
    x = IMAGES.example(2)
    torch.manual_seed(3)
    drawn = made(x, num_samples=1)
    layers = made.layers(RandomFilters)
    (seed,) = layers[0].shared.seeds
    frozen = FrequencyDropout(eval_mode="frozen")(ResNet(depth=8)(IMAGES)).eval()
    frozen.load_state_dict(made.state_dict(), strict=False)
    for mine, theirs in zip(frozen.layers(RandomFilters), layers, strict=True):
        mine.become(theirs.kernels(seed), seed)
    assert_close(frozen(x), drawn)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("eval_mode", ["frozen", "sample"])
def test_members_of_a_batch_ensemble_go_through_the_same_layer(order: int, eval_mode: str) -> None:
    surgeries = [FrequencyDropout(eval_mode=eval_mode), BatchEnsemble(num_members=2)]
    made = ResNet(depth=8, width=4)(IMAGES)
    for surgery in surgeries if order else surgeries[::-1]:
        made = surgery(made)
    assert len(made.layers(RandomFilters)) == 7
    x = IMAGES.example(4)
    assert paced(made, 1).train()(x).shape == (2, 4, 10)
    assert made.eval()(x, num_samples=3 if eval_mode == "sample" else None).isfinite().all()


def test_a_foreign_network_in_one_module() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.classifier = nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.bn(self.stem(x)).relu().mean((2, 3)))

    made = FrequencyDropout()(Network.wrap(Foreign(), head="classifier", signature=IMAGES))
    assert made.notes[-1].converted == ("features.stem",)
    assert paced(made, 1).train()(IMAGES.example(4)).isfinite().all()


def test_networks_without_maps_are_refused_and_so_is_what_cannot_be() -> None:
    with pytest.raises(NoLayerReplaced, match="FrequencyDropout found nothing"):
        FrequencyDropout()(MLP()(Signature(input_shape=(5,))))
    wrong: dict[str, Any] = {
        "filters": ("gaussian", "gaussian"),
        "gaussian_sigma": (1.0, 0.5),
        "log_p": 1.5,
        "kernel_size": 5,  # with the Laplacian over its sum
        "log_mode": "sharp",
        "type_per": "channel",
        "resample": "batch",
        "eval_mode": "off",
        "num_samples": 0,
        "where": "everywhere",
        "padding": "same",
        "anneal": (4, 4),
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"FrequencyDropout: {name}"):
            FrequencyDropout(**{name: value})
    assert FrequencyDropout(kernel_size=5, log_mode="proper").kernel_size == 5
