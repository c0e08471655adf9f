"""Smoothing, BatchEnsemble and MC dropout on torchvision's and timm's networks: training, prediction, and at rest."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from levelhead.backbones.timm import Timm
from levelhead.backbones.torchvision import Torchvision
from levelhead.forward import Forward, network_loss
from levelhead.layers.dropout import FunctionalDropout
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.per_member import PerMember
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.parameter_groups import groups
from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Point
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.film_ensemble import FilmEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.masksembles import Masksembles
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.mean_field import MeanField
from levelhead.surgeries.mimo import MIMO
from levelhead.surgeries.multi_head import MultiHead
from levelhead.surgeries.packed_ensemble import PackedEnsemble
from levelhead.surgeries.rank1_bnn import Rank1BNN
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.types import Batch, CannotCompose, NoLayerReplaced

pytest.importorskip("torchvision", reason="needs torchvision: make test-interop")
timm = pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop

SIGNATURE = Signature((3, 64, 64), 10, Categorical(10), (0.4,) * 3, (0.2,) * 3)
NETWORKS = {
    "torchvision": Torchvision("resnet18"),
    "timm": Timm("resnet18", options={"drop_rate": 0.3, "zero_init_last": False}),  # dropout is a function in its code
}
SURGERIES = [
    (SpatialSmoothing(),),
    (BatchEnsemble(),),
    (MCDropout(),),
    (SpatialSmoothing(), BatchEnsemble(), MCDropout()),
]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    """A network with statistics other than the initial ones."""
    made = NETWORKS[request.param](SIGNATURE).train()
    made(SIGNATURE.example(8, seed=3))
    return made.eval()


def operated(network: Network, surgeries: tuple[Callable[[Network], Network], ...]) -> Network:
    for surgery in surgeries:
        network = surgery(network)
    return network


def statistics(network: Network) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def moved(network: Network, before: dict[str, Tensor]) -> list[str]:
    return [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])]


@pytest.mark.parametrize("surgeries", SURGERIES, ids=lambda s: "+".join(type(part).__name__ for part in s))
def test_a_step_of_training_and_a_prediction(network: Network, surgeries) -> None:
    made = operated(network, surgeries).train()
    x, y = SIGNATURE.example(8), torch.arange(8)
    optimiser = torch.optim.SGD(groups(made, lr=0.05, weight_decay=1e-4), lr=0.05)
    before, losses = statistics(made), []
    for _ in range(3):
        optimiser.zero_grad()
        loss = made.likelihood.loss(made(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert losses[-1] < losses[0]
    norms = [m for m in made.modules() if isinstance(m, _BatchNorm)]
    assert len(moved(made, before)) == 3 * len(norms)

    before = statistics(made)
    predictor = Point(made).eval()
    belief = predictor(x)
    assert isinstance(belief, CategoricalMixture)
    assert belief.probs.shape == (8, 10)
    assert_close(belief.probs.sum(-1), torch.ones(8))
    assert len(belief.logits) == made.num_members * made.num_samples
    assert not moved(made, before)


MEMBERS = [
    FilmEnsemble(),
    Masksembles(),
    PackedEnsemble(),
    MIMO(num_members=2),
    MultiHead(),
    Rank1BNN(),
    MeanField(num_samples=2),
    HyperBatch(),
]


@pytest.mark.parametrize("surgery", MEMBERS, ids=lambda s: type(s).__name__)
def test_members_and_posteriors_train_and_predict(network: Network, surgery) -> None:
    made = surgery(network).train()
    x, y = SIGNATURE.example(8), torch.arange(8)
    network_loss(Forward(made, Batch(x, y, torch.arange(8)))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.features.parameters())
    before = statistics(made)
    belief = Point(made)(x)
    assert isinstance(belief, CategoricalMixture)
    assert len(belief.logits) == made.num_members * made.num_samples > 1
    assert not torch.allclose(belief.logits[0], belief.logits[1])
    assert not moved(made, before)


def test_members_that_cannot_be_kept_apart_are_refused() -> None:
    dense = Torchvision("densenet121")(SIGNATURE)
    with pytest.raises(CannotCompose, match="its members would not be apart"):
        PackedEnsemble()(dense)
    assert FilmEnsemble()(dense).eval()(SIGNATURE.example(2)).shape == (4, 2, 10)


def test_smoothing_stands_before_the_strided_blocks_and_the_global_pool(network: Network) -> None:
    made = SpatialSmoothing()(network)
    places = [place.removeprefix("features.model.") for place in made.notes[-1].converted]
    assert places[:3] == ["layer2.0", "layer3.0", "layer4.0"]
    assert places[3] in ("avgpool", "global_pool.pool")
    x = SIGNATURE.example(4)
    assert made(x).shape == network(x).shape
    assert not torch.allclose(made(x), network(x))
    off = SpatialSmoothing(prob="none", taps=(1.0,))(network)  # nothing bounded, nothing blurred
    assert torch.equal(off(x), network(x))


def test_batch_ensemble_of_ones_is_the_network(network: Network) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = BatchEnsemble(num_members=3, init="ones")(network)
    linear = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(made.layers(FastWeights)) == len(linear)
    assert len(made.layers(PerMember)) == sum(isinstance(m, _BatchNorm) for m in network.modules())
    x = SIGNATURE.example(4)
    assert_close(made.eval()(x), network(x).expand(3, -1, -1), rtol=1e-3, atol=1e-4)


def test_mc_dropout_is_quiet_at_rest_and_draws_on_request(network: Network) -> None:
    made = MCDropout(num_samples=5)(network)
    x = SIGNATURE.example(4)
    assert torch.equal(made(x), network(x))
    draws = made(x, num_samples=5)
    assert draws.shape == (5, 4, 10)
    assert not torch.allclose(draws[0], draws[1])
    assert torch.equal(made(x), network(x))


def test_dropout_in_timms_code_draws_as_timm_trains_with_it() -> None:
    network = NETWORKS["timm"](SIGNATURE).eval()
    made = MCDropout()(network)
    assert made.notes[-1].converted == ("features.model",)
    assert isinstance(made.features.model, FunctionalDropout)
    z = network.embed(SIGNATURE.example(2))[0].repeat(6, 1)
    torch.manual_seed(1)
    expected = network.head(nn.functional.dropout(z, 0.3)).reshape(6, 2, 10)
    torch.manual_seed(1)
    assert_close(made(SIGNATURE.example(2), num_samples=6), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_activates_first_is_smoothed_before_the_global_pool_when_asked() -> None:
    network = Torchvision("densenet121")(SIGNATURE).eval()
    made = SpatialSmoothing(final=True)(network)
    assert len(made.notes[-1].converted) == len(SpatialSmoothing()(network).notes[-1].converted) + 1


@pytest.mark.parametrize(
    "backbone, count, last",
    [
        (Torchvision("resnet50"), 4, "avgpool"),
        (Torchvision("vgg11"), 5, "features.20"),
        (Torchvision("mobilenet_v2"), 5, "features.14.conv.1.0"),  # the global pool is a function behind `features`
        (Torchvision("densenet121"), 3, "features.transition3.pool"),  # activates first: not before the global pool
        (Torchvision("convnext_tiny"), 4, "avgpool"),
        (Timm("efficientnet_b0"), 5, "global_pool.pool"),
        (Timm("regnety_002"), 5, "head.global_pool.pool"),
        (Timm("seresnet18"), 4, "global_pool.pool"),  # pools inside its blocks are not global
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_places_in_other_architectures(backbone, count: int, last: str) -> None:
    network = backbone(SIGNATURE).eval()
    made = SpatialSmoothing()(network)
    assert len(made.notes[-1].converted) == count
    assert made.notes[-1].converted[-1] == f"features.model.{last}"
    assert made(SIGNATURE.example()).shape == (1, 2, 10)


@pytest.mark.parametrize(
    "backbone",
    [Torchvision("vit_b_32", options={"image_size": 64}), Timm("mixer_s32_224", options={"img_size": 64})],
    ids=repr,
)
def test_networks_of_tokens(backbone) -> None:
    network = backbone(SIGNATURE).eval()
    x = SIGNATURE.example()
    with pytest.raises(NoLayerReplaced, match="SpatialSmoothing"):
        SpatialSmoothing()(network)
    made = MCDropout()(network)
    assert torch.equal(made(x), network(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ones = BatchEnsemble(num_members=2, init="ones")(network)
    assert_close(ones.eval()(x), network(x).expand(2, -1, -1), rtol=1e-3, atol=1e-4)


def test_torch_uncertainty_computes_the_same_members() -> None:
    layers = pytest.importorskip("torch_uncertainty.layers", reason="needs torch-uncertainty: make test-interop")
    theirs = layers.BatchConv2d(4, 6, 3, num_estimators=3, stride=2, padding=1)
    ours = FastWeights(nn.Conv2d(4, 6, 3, stride=2, padding=1), 3)
    with torch.no_grad():
        ours.module.weight.copy_(theirs.conv.weight)
        ours.r[0].copy_(theirs.r_group if theirs.r_group.shape[1] == 4 else theirs.s_group)
        ours.s[0].copy_(theirs.s_group if theirs.s_group.shape[1] == 6 else theirs.r_group)
        ours.bias.copy_(theirs.bias)
    x = torch.randn(6, 4, 8, 8)
    assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
