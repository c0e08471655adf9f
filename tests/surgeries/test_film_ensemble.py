"""FiLM-Ensemble against as many plain networks, and the law of its initial scales."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.film import Affine, FiLM
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.parameter_groups import groups
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.film_ensemble import FilmEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.types import NoLayerReplaced

IMAGES = Signature(input_shape=(3, 16, 16), num_outputs=5, likelihood=Categorical(5))
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
BACKBONES = [
    (MLP(hidden=(8, 8)), TABLE),
    (MLP(hidden=(8, 8), batch_norm=True), TABLE),
    (LeNet(), IMAGES),
    (ResNet(depth=8), IMAGES),
    (ResNet(depth=8, norm="group", preact=True), IMAGES),
]


def member(network: Network, k: int) -> nn.Module:
    """Member k as a plain module."""
    plain = nn.Sequential(copy.deepcopy(network.features), copy.deepcopy(network.head))
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, FiLM):
            parent, _, attribute = name.rpartition(".")
            setattr(plain.get_submodule(parent), attribute, layer.members[k])
    return plain


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_the_network_is_its_members(backbone, signature: Signature, training: bool) -> None:
    made = FilmEnsemble(num_members=3)(backbone(signature)).double()
    made(signature.example(8, seed=1).double())  # statistics of their own
    made.train(training)
    members = [member(made, k).train(training) for k in range(3)]
    x = signature.example(6).double()
    outputs = made(x)
    assert outputs.shape == (3, 6, signature.num_outputs)
    for k, plain in enumerate(members):
        assert_close(outputs[k], plain(x))
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_copies_are_the_network_itself_statistics_included(backbone, signature: Signature) -> None:
    network = backbone(signature)
    network(signature.example(8))
    with pytest.warns(UserWarning, match="they stay alike for ever"):
        made = FilmEnsemble(num_members=2, init="copy")(network)
    x = signature.example(6, seed=2)
    for mode in (True, False):
        assert_close(made.train(mode)(x), network.train(mode)(x).expand(2, -1, -1), rtol=1e-4, atol=1e-5)
    plain = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    for norm, film in zip(plain, [f for f in made.layers(FiLM) if isinstance(f.members[0], _BatchNorm)], strict=True):
        for own in film.members:
            assert_close(own.running_mean, norm.running_mean)
            assert_close(own.running_var, norm.running_var)


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_members_are_isolated_in_gradients_and_in_statistics(backbone, signature: Signature) -> None:
    made = FilmEnsemble(num_members=3)(backbone(signature)).double().train()
    rows = torch.stack([signature.example(4, seed=k) for k in range(3)]).double().requires_grad_(True)
    made(rows.flatten(0, 1), per_member=True)[1].square().sum().backward()
    own = rows.grad.flatten(1).abs().sum(1)
    assert own[1] > 0
    assert own[0] == own[2] == 0
    for film in made.layers(FiLM):
        moved = [sum(float(p.grad.abs().sum()) for p in m.parameters() if p.grad is not None) for m in film.members]
        assert moved[1] > 0
        assert moved[0] == moved[2] == 0


def test_the_law_of_the_initial_values() -> None:
    torch.manual_seed(0)
    film = FiLM(nn.BatchNorm2d(4096), 4, init="xavier", gain=2.0, decay=False)
    gamma = torch.stack([m.weight.detach() for m in film.members])
    bound = 2.0 * math.sqrt(6 / (4 + 4096))
    assert float(gamma.abs().max()) <= bound
    assert_close(float(gamma.var()), bound**2 / 3, rtol=0.05, atol=0)
    assert abs(float((gamma > 0).double().mean()) - 0.5) < 0.02
    signs = FiLM(nn.BatchNorm2d(64), 2, init="bernoulli", gain=0.5, decay=False).members[0].bias
    assert set(signs.tolist()) == {-0.5, 0.5}
    norm = nn.GroupNorm(2, 4096)
    nn.init.constant_(norm.weight, 3.0)
    spread = FiLM(norm, 2, init="normal", gain=0.1, decay=False).members[1].weight.detach()
    assert_close(float(spread.mean()), 3.0, rtol=0.01, atol=0)
    assert_close(float(spread.std()), 0.1, rtol=0.05, atol=0)


def test_parameters_grow_by_two_numbers_a_channel_and_member() -> None:
    network = ResNet(depth=8)(IMAGES)
    channels = sum(m.num_features for m in network.modules() if isinstance(m, _BatchNorm))
    made = FilmEnsemble(num_members=4)(network)
    before, after = (sum(p.numel() for p in n.parameters()) for n in (network, made))
    assert after - before == 2 * channels * 3


def test_scales_and_shifts_have_no_weight_decay_unless_asked() -> None:
    for decay in (False, True):
        made = FilmEnsemble(decay=decay)(ResNet(depth=8)(IMAGES))
        films = {id(p) for layer in made.layers(FiLM) for p in layer.parameters()}
        for group in groups(made, lr=0.1, weight_decay=1e-3):
            for parameter in group["params"]:
                assert group["weight_decay"] == (1e-3 if decay or id(parameter) not in films else 0.0)


def test_features_without_norms_are_modulated_behind_their_layers() -> None:
    made = FilmEnsemble()(LeNet()(IMAGES))
    assert [type(layer.members[0]) for layer in made.layers(FiLM)] == [Affine] * 4
    with pytest.raises(NoLayerReplaced, match="FilmEnsemble found nothing"):
        FilmEnsemble()(Network(nn.Flatten(), nn.Linear(768, 5), IMAGES, width=768))


def test_norms_without_a_scale_are_left() -> None:
    stages = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4), nn.Flatten())
    made = FilmEnsemble()(Network(stages, nn.Linear(784, 5), IMAGES))
    assert made.notes[-1].converted == ("features.2",)
    assert [name for name, _ in made.notes[-1].skipped] == ["features.1"]


def test_layers_and_norms_that_members_own_already_are_left() -> None:
    network = ResNet(depth=8)(IMAGES)
    with pytest.raises(NoLayerReplaced, match="FilmEnsemble found nothing"):
        FilmEnsemble()(BatchEnsemble()(network))
    both = FilmEnsemble()(BatchEnsemble(per_member_norm=False)(network))
    assert both(IMAGES.example(2)).shape == (4, 2, 5)
    assert len(both.layers(FiLM)) == len([m for m in network.modules() if isinstance(m, _BatchNorm)])


def test_no_warning_where_masks_tell_copies_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = FilmEnsemble(init="copy")(MCDropout()(MLP(batch_norm=True)(TABLE)))
    outputs = made(TABLE.example(4))
    assert not torch.allclose(outputs[0], outputs[1])


def test_rows_enter_behind_the_first_convolution() -> None:
    made = FilmEnsemble(num_members=4)(ResNet(depth=8)(IMAGES)).eval()
    rows = []
    first = next(m for m in made.features.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    made(IMAGES.example(3))
    assert rows == [3]


def test_validation() -> None:
    for options in ({"num_members": 0}, {"init": "ones"}, {"gain": 0.0}):
        with pytest.raises(ValueError, match=f"FilmEnsemble: {next(iter(options))} must"):
            FilmEnsemble(**options)
