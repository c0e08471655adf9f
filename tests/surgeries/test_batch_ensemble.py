"""BatchEnsemble against as many networks built with explicit weights, on our networks and on others'."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.per_member import PerMember
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network, build
from levelhead.parameter_groups import groups
from levelhead.predictive import CategoricalMixture
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose, NoLayerReplaced

IMAGES = Signature(input_shape=(3, 16, 16), num_outputs=5, likelihood=Categorical(5))
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
BACKBONES = [
    (MLP(hidden=(8, 8), batch_norm=True), TABLE),
    (LeNet(), IMAGES),
    (ResNet(depth=8), IMAGES),
    (ResNet(depth=8, norm="group", preact=True), IMAGES),
]
BATCH_NORM = [BACKBONES[0], BACKBONES[2]]


def unlike(network: Network) -> Network:
    """Own vectors, biases and norms for all members, far from one another."""
    for layer in network.modules():
        if isinstance(layer, FastWeights) and layer.bias is not None:
            nn.init.normal_(layer.bias, std=0.3)
        if isinstance(layer, _BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return network


def member(network: Network, k: int) -> nn.Module:
    """Member k as a plain module."""
    plain = nn.Sequential(copy.deepcopy(network.features), copy.deepcopy(network.head))
    for name, layer in list(plain.named_modules()):
        if not isinstance(layer, FastWeights | PerMember):
            continue
        if isinstance(layer, PerMember):
            new = layer.members[k]
        else:
            new = layer.module
            outer = torch.einsum("qo,qi->oi", layer.s[:, k], layer.r[:, k])
            new.weight = nn.Parameter(new.weight * outer.reshape(*outer.shape, *(1,) * (new.weight.ndim - 2)))
            new.bias = None if layer.bias is None else nn.Parameter(layer.bias[k])
        parent, _, attribute = name.rpartition(".")
        setattr(plain.get_submodule(parent), attribute, new)
    return plain


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_the_network_is_its_members(backbone, signature: Signature, training: bool) -> None:
    made = unlike(BatchEnsemble(num_members=3)(backbone(signature))).double()
    made(signature.example(8, seed=1).double())
    made.train(training)
    members = [member(made, k).train(training) for k in range(3)]
    x = signature.example(6).double()
    outputs = made(x)
    assert outputs.shape == (3, 6, signature.num_outputs)
    for k, plain in enumerate(members):
        assert_close(outputs[k], plain(x))
    assert not torch.allclose(outputs[0], outputs[1])
    belief = CategoricalMixture(outputs)
    assert_close(belief.probs, torch.stack([plain(x).softmax(-1) for plain in members]).mean(0))


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_gradients_are_those_of_the_members(backbone, signature: Signature) -> None:
    made = unlike(BatchEnsemble(num_members=3)(backbone(signature))).double()
    x = signature.example(6).double()
    made(x)[1].square().mean().backward()
    plain = member(made, 1)
    plain(x).square().mean().backward()
    for (name, layer), other in zip(made.features.named_modules(), plain[0].modules(), strict=False):
        if isinstance(layer, FastWeights):
            own = layer.r.grad.abs().sum((0, 2))
            assert own[1] > 0, name
            assert own[0] == own[2] == 0, name
            factor = torch.outer(layer.s[0, 1], layer.r[0, 1]).detach()
            expected = other.weight.grad * factor.reshape(*factor.shape, *(1,) * (other.weight.ndim - 2))
            assert_close(layer.module.weight.grad, expected)
            break
    else:
        raise AssertionError("no layer was compared")


@pytest.mark.parametrize("backbone, signature", BATCH_NORM, ids=repr)
def test_norms_of_members_and_of_all(backbone, signature: Signature) -> None:
    network = backbone(signature)
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    own = BatchEnsemble()(network)
    assert len(own.layers(PerMember)) == len(norms)
    shared = BatchEnsemble(per_member_norm=False)(network)
    assert not shared.layers(PerMember)
    x = signature.example(8).double()
    for made, isolated in ((own.double(), True), (shared.double(), False)):
        made(x)
        first = made.layers(FastWeights)[0]
        before = made(x).detach()
        with torch.no_grad():
            first.r[0, 3] *= -1.5
        same = [bool(torch.allclose(a, b)) for a, b in zip(made(x), before, strict=True)]
        assert same == ([True, True, True, False] if isolated else [False] * 4)


def test_scales_and_shifts_of_members() -> None:
    network = ResNet(depth=8, width=4, norm="group")(IMAGES)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.GroupNorm)]
    assert not BatchEnsemble()(network).layers(PerMember)
    made = BatchEnsemble(per_member_affine=True)(network)
    owned = made.layers(PerMember)
    assert len(owned) == len(norms) > 0
    x = IMAGES.example(4)
    before = made(x).detach()
    with torch.no_grad():
        owned[0].members[2].bias += 1.0
    same = [bool(torch.allclose(a, b)) for a, b in zip(made(x), before, strict=True)]
    assert same == [True, True, False, True]


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_ones_are_the_network_itself_and_the_weights_stay(backbone, signature: Signature) -> None:
    network = backbone(signature)
    network(signature.example(8))
    network.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.warns(UserWarning, match="they stay alike for ever"):
        made = BatchEnsemble(init="ones")(network)
    x = signature.example(4)
    assert_close(made(x), network(x).expand(4, -1, -1), rtol=1e-4, atol=1e-5)
    for (name, layer), new in zip(
        ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)),
        made.layers(FastWeights),
        strict=True,
    ):
        assert torch.equal(new.module.weight, layer.weight), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.num_members == 1
    assert made.num_members == 4
    assert isinstance(made.head, FastWeights)


def test_no_warning_where_masks_tell_members_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = BatchEnsemble(init="ones")(MCDropout()(MLP()(TABLE)))
    outputs = made(TABLE.example(4))
    assert not torch.allclose(outputs[0], outputs[1])


def test_parameter_groups() -> None:
    made = BatchEnsemble(fast_lr=0.25)(LeNet()(IMAGES))
    found = {group["lr"]: group for group in groups(made, lr=0.1, weight_decay=1e-3)}
    assert found.keys() == {0.1, 0.025}
    assert found[0.1]["weight_decay"] == 1e-3
    assert found[0.025]["weight_decay"] == 0.0
    own = {p for layer in made.layers(FastWeights) for p in (layer.r, layer.s, layer.bias)}
    assert set(found[0.025]["params"]) == own
    assert {p for layer in made.layers(FastWeights) for p in layer.module.parameters()} == set(found[0.1]["params"])


def test_within() -> None:
    network = LeNet()(IMAGES)
    head = BatchEnsemble(within="head")(network)
    assert head.notes[-1].converted == ("head",)
    rows = []
    head.features.hidden2.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    assert head(IMAGES.example(3)).shape == (4, 3, 5)
    assert rows == [3]  # members enter at the head
    features = BatchEnsemble(within="features")(network)
    assert isinstance(features.head, nn.Linear)


class Foreign(nn.Module):
    """Nested, shared and functional uses; a subclass that is linear and one that is not; attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), nn.ReLU())
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.centred, self.squared = Centred(8, 8, 1), Squared(8, 8, 1)
        self.in_code = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.twice(self.twice(self.stem(x)).relu())
        z = self.squared(self.centred(z)).mean((2, 3))
        z = nn.functional.linear(z, self.in_code.weight)[:, None]
        return self.head(self.attention(z, z, z, need_weights=False)[0][:, 0])


class Centred(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias)


class Squared(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.square())


def test_foreign_networks_are_converted_where_they_can_be_and_the_rest_is_reported() -> None:
    module = Foreign().eval()
    made = BatchEnsemble(num_members=2)(Network.wrap(module, head="head", signature=IMAGES))
    converted = ["features.stem.0.0", "features.stem.0.1", "features.twice", "features.centred", "head"]
    assert list(made.notes[-1].converted) == converted
    reasons = dict(made.notes[-1].skipped)
    assert reasons.keys() == {"features.squared", "features.in_code", "features.attention.out_proj"}
    assert "Squared is not linear" in reasons["features.squared"]
    assert "without calling it" in reasons["features.in_code"]
    x = IMAGES.example(4)
    outputs = made.eval()(x)
    assert outputs.shape == (2, 4, 5)
    for layer in made.layers(FastWeights):
        nn.init.ones_(layer.r)
        nn.init.ones_(layer.s)
    assert_close(made(x), module(x).expand(2, -1, -1))


def test_other_surgeries_before_and_after() -> None:
    x = IMAGES.example(4)
    network = ResNet(depth=8)(IMAGES)
    ensemble, smooth = BatchEnsemble(), SpatialSmoothing()
    torch.manual_seed(1)
    smoothed_first = ensemble(smooth(network)).eval()
    torch.manual_seed(1)
    smoothed_last = smooth(ensemble(network)).eval()
    assert_close(smoothed_first(x), smoothed_last(x))
    for surgeries in (
        (SpectralNorm(), ensemble),
        (ensemble, SpectralNorm()),
        (ensemble, MCDropout()),
        (MCDropout(), ensemble),
    ):
        made = network
        for surgery in surgeries:
            made = surgery(made)
        outputs = made.train()(x)
        assert outputs.shape == (4, 4, 5)
        outputs.square().mean().backward()
        assert all(layer.r.grad.abs().sum() > 0 for layer in made.layers(FastWeights))


def test_members_and_samples_share_the_rows() -> None:
    made = MCDropout(p=0.3, where="head")(BatchEnsemble(num_members=2)(ResNet(depth=8)(IMAGES))).eval()
    x = IMAGES.example(3)
    at_rest = made(x)
    assert at_rest.shape == (2, 3, 5)
    draws = made(x, num_samples=400).detach().reshape(2, 400, 3, 5)
    assert draws.std(1).min() > 0
    error = 4 * draws.std(1) / 400**0.5
    assert ((draws.mean(1) - at_rest).abs() < error).all()  # before a linear head the mean of the draws is the rest
    assert not ((draws.mean(1) - at_rest.flip(0)).abs() < error).all()  # and not another member's


def test_another_number_of_members_cannot_share_the_axis() -> None:
    network = BatchEnsemble(num_members=2, within="head")(LeNet()(IMAGES))
    with pytest.raises(CannotCompose, match="one surgery declared 2, another 3"):
        BatchEnsemble(num_members=3, within="features")(network)


@pytest.mark.parametrize(
    "surgeries", [(BatchEnsemble(rank=2), MCDropout()), (SpatialSmoothing(), BatchEnsemble())], ids=repr
)
def test_a_rebuilt_network_takes_the_saved_weights(surgeries) -> None:
    made = build(ResNet(depth=8), surgeries, IMAGES)
    made(IMAGES.example(8))
    rebuilt = build(ResNet(depth=8), surgeries, IMAGES)
    rebuilt.load_state_dict(made.state_dict())
    x = IMAGES.example(4)
    assert torch.equal(rebuilt.eval()(x), made.eval()(x))


def test_nothing_to_replace() -> None:
    bare = Network(nn.PReLU(), nn.Identity(), Signature(input_shape=(6,)))
    with pytest.raises(NoLayerReplaced, match="BatchEnsemble found nothing"):
        BatchEnsemble()(bare)


def test_validation() -> None:
    for options in (
        {"num_members": 0},
        {"rank": 0},
        {"init": "zeros"},
        {"init_scale": -1.0},
        {"fast_lr": -1.0},
        {"within": "body"},
    ):
        with pytest.raises(ValueError, match=f"BatchEnsemble: {next(iter(options))} must"):
            BatchEnsemble(**options)


def test_trained_members_disagree_and_mix_to_something_better() -> None:
    task = stripes(n=96)
    network = BatchEnsemble(init="sign")(MLP()(task.signature))
    optimiser = torch.optim.Adam(groups(network, lr=2e-3, weight_decay=0.0))
    batch = next(iter(task.train.ordered(96)))
    for _ in range(30):
        optimiser.zero_grad()
        network.likelihood.loss(network(batch.x), batch.y).backward()
        optimiser.step()
    held_out = next(iter(task.val.ordered(96)))
    belief = CategoricalMixture(network.eval()(held_out.x).detach())
    assert belief.epistemic().mean() > 1e-4
    assert belief.log_prob(held_out.y).mean() >= belief.member_log_prob(held_out.y).mean()
