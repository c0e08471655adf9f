"""Smoothing on our networks and on others': where it stands, what it keeps, and what it does to features."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.around import Around
from levelhead.layers.smooth import Smooth
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.predictive import CategoricalMixture
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.mlp_head import MLPHead
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.types import CannotCompose, NoLayerReplaced

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)


def removed(network: Network) -> Network:
    """The network with every Smooth taken out again."""
    new = copy.deepcopy(network)
    for layer in new.layers(Around):
        layer.before = layer.after = nn.Identity()
    return new


@pytest.mark.parametrize(
    "backbone, places",
    [
        (ResNet(depth=8), ("stage2.0", "stage3.0", "pool")),
        (ResNet(depth=18, stem="imagenet", width=4), ("stage2.0", "stage3.0", "stage4.0")),  # one pixel is left
        (ResNet(depth=50, width=2), ("stage2.0", "stage3.0", "stage4.0", "pool")),
        (ResNet(depth=8, preact=True), ("stage2.0", "stage3.0")),  # the last block ends without an activation
        (LeNet(), ("stage1.pool", "stage2.pool")),
        (VGG(depth=11, width=2), tuple(f"stage{i}.pool" for i in range(1, 6))),
    ],
    ids=repr,
)
def test_places_and_what_stays(backbone, places: tuple[str, ...]) -> None:
    network = backbone(IMAGES).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = IMAGES.example(4)
    outputs = network(x)
    made = SpatialSmoothing()(network)
    assert made.notes[-1].converted == tuple(f"features.{place}" for place in places)
    assert made(x).shape == outputs.shape
    assert not torch.allclose(made(x), outputs)
    assert torch.equal(removed(made)(x), outputs)  # bit for bit
    after = {name.replace(".module.", "."): tensor for name, tensor in made.state_dict().items()}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(network(x), outputs)
    assert not network.notes


def test_final_and_reference_padding() -> None:
    network = ResNet(depth=8)(IMAGES)
    made = SpatialSmoothing(final=False, padding="reference")(network)
    assert made.notes[-1].converted == ("features.stage2.0", "features.stage3.0")
    sizes = [call.output_shape[2] for call in made.trace().calls if isinstance(call.module, Smooth)]
    assert sizes == [33, 18]  # the sheet's 33, 18, 10, 6 begins so
    assert made(IMAGES.example()).shape == (1, 2, 10)


def test_block_and_shortcut_read_the_smoothed_map() -> None:
    made = SpatialSmoothing()(ResNet(depth=8)(IMAGES)).eval()
    block = made.features.stage2[0]
    x = torch.rand(2, 16, 32, 32)
    z = F.avg_pool2d(F.pad(10 * torch.tanh(x / 10), (0, 1, 0, 1)), 2, 1)
    assert_close(block(x), block.module(z))


def test_networks_without_pixels_are_refused() -> None:
    with pytest.raises(NoLayerReplaced, match="SpatialSmoothing found nothing"):
        SpatialSmoothing()(MLP()(Signature(input_shape=(5,))))


class Tutorial(nn.Module):
    """One pool module for all steps, as hand-written networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 8, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(200, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        return self.fc(self.pool(F.relu(self.conv2(x))).flatten(1))


def test_a_shared_pool_is_smoothed_at_each_use() -> None:
    module = Tutorial().eval()
    made = SpatialSmoothing()(Network.wrap(module, head="fc", signature=IMAGES))
    x = IMAGES.example()

    def pool(z: Tensor) -> Tensor:
        return F.max_pool2d(F.avg_pool2d(F.pad(10 * torch.tanh(z / 10), (0, 1, 0, 1)), 2, 1), 2)

    z = pool(F.relu(module.conv2(pool(F.relu(module.conv1(x))))))
    assert_close(made(x)[0], module.fc(z.flatten(1)))


@pytest.mark.parametrize("prob", ["bn", "bn_tanh"])
def test_batch_norm_variants_have_parameters_that_learn(prob: str) -> None:
    made = SpatialSmoothing(prob=prob)(ResNet(depth=8)(IMAGES))
    layers = made.layers(Smooth)
    assert [layer.norm.num_features for layer in layers] == [16, 32, 64]
    made(IMAGES.example(4)).square().mean().backward()
    assert all(layer.norm.weight.grad is not None for layer in layers)


def test_a_second_time_smooths_twice() -> None:
    once = SpatialSmoothing()(ResNet(depth=8)(IMAGES))
    twice = SpatialSmoothing()(once)
    assert len(twice.layers(Smooth)) == 2 * len(once.layers(Smooth))


def test_validation() -> None:
    for options in ({"prob": "relu"}, {"padding": "same"}, {"temperature": 0.0}, {"taps": ()}):
        with pytest.raises(ValueError, match=f"SpatialSmoothing: {next(iter(options))}"):
            SpatialSmoothing(**options)


def stage_outputs(network: Network, x: Tensor) -> list[Tensor]:
    """What leaves stages 1 to 3, a Smooth of the next place included, element-wise dropout 0.3 before each last
    convolution."""
    z, out = x, []
    for name, stage in network.features.named_children():
        if name.startswith(("stage", "pool")) and out:
            first = stage[0] if name.startswith("stage") else stage
            out[-1] = first.before(out[-1]) if isinstance(first, Around) else out[-1]
        if name == "pool":
            return out
        z = stage(z)
        if name.startswith("stage"):
            out.append(z)
    raise AssertionError("no pool")


def dropping(network: Network) -> Network:
    for block in network.modules():
        if hasattr(block, "body"):
            block.body.conv2.register_forward_pre_hook(lambda module, args: (F.dropout(args[0], 0.3),))
    return network


def images(count: int) -> Tensor:
    """Smooth pictures under a little noise."""
    coarse = torch.randn(count, 3, 8, 8)
    smooth = F.interpolate(coarse, size=32, mode="bilinear")
    return (0.5 + 0.2 * smooth + 0.02 * torch.randn(count, 3, 32, 32)).clamp(0, 1)


def test_features_get_stable_and_smooth_without_training() -> None:
    """Share of the variance that comes from dropout masks, and the highest diagonal frequency."""
    torch.manual_seed(1)
    x = images(32)
    plain = ResNet(depth=8)(IMAGES).train()
    smoothed = SpatialSmoothing()(plain).train()
    measured = []
    for network in (plain, smoothed):
        dropping(network)
        for _ in range(10):
            network(x)  # BatchNorm statistics
        network.eval()
        with torch.no_grad():
            passes = [torch.stack(stage) for stage in zip(*(stage_outputs(network, x) for _ in range(10)), strict=True)]
        shares = [float(stage.var(0).mean() / stage.var()) for stage in passes]
        spectra = [torch.fft.fft2(stage[0]).abs().add(1e-6).log().mean((0, 1)) for stage in passes]
        falls = [float(s[s.shape[0] // 2, s.shape[1] // 2] - s[0, 0]) for s in spectra]
        measured.append((shares, falls))
    (shares, falls), (shares_smooth, falls_smooth) = measured
    for stage in range(3):
        assert shares_smooth[stage] < shares[stage] / 2, (shares, shares_smooth)
        assert falls_smooth[stage] < falls[stage] - 1.5, (falls, falls_smooth)


def test_final_follows_the_authors_unless_told() -> None:
    for backbone, last in ((ResNet(depth=8), "pool"), (ResNet(depth=8, preact=True), "pool"), (flat(), "act2")):
        network = backbone if isinstance(backbone, Network) else backbone(IMAGES)
        places = {final: SpatialSmoothing(final=final)(network).notes[-1].converted for final in (None, True, False)}
        assert places[True] == (*places[False], f"features.{last}")
        authors = isinstance(backbone, ResNet) and not backbone.preact
        assert places[None] == places[authors]


def flat() -> Network:
    """A map that is flattened, as VGG's and AlexNet's heads have it, here with 8 x 8 pixels left."""
    features = OrderedDict(
        conv1=nn.Conv2d(3, 4, 3, padding=1), act1=nn.ReLU(), pool1=nn.MaxPool2d(2), conv2=nn.Conv2d(4, 8, 3, 2, 1),
        act2=nn.ReLU(), flatten=nn.Flatten(), hidden=nn.Linear(512, 16),
    )  # fmt: skip
    return Network(nn.Sequential(features), nn.Linear(16, 10), IMAGES)


def test_stems_when_asked() -> None:
    signature = Signature(input_shape=(3, 64, 64), num_outputs=10)
    network = ResNet(depth=18, stem="imagenet", width=4)(signature)
    left, asked = (SpatialSmoothing(stem=stem)(network).notes[-1].converted for stem in (False, True))
    assert set(asked) - set(left) == {"features.stem.pool"}
    assert set(left) < set(asked)
    strided = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.AdaptiveAvgPool2d(1))
    network = Network(nn.Sequential(*strided, nn.Flatten()), nn.Linear(4, 10), signature)
    assert SpatialSmoothing(stem=True)(network).notes[-1].converted == ("features.2", "features.3")  # not the image


def test_larger_maps_are_refused_where_something_wants_the_old_size() -> None:
    reference = SpatialSmoothing(padding="reference")
    whole = flat()
    direct = Network(whole.features[:-1], nn.Linear(512, 10), IMAGES)  # the head itself reads the flattened map
    for network in (whole, direct):
        with pytest.raises(CannotCompose, match=r"padding='reference'.* larger .*Write padding='zero'"):
            reference(network)
        assert SpatialSmoothing()(network)(IMAGES.example()).shape == (1, 2, 10)
    vgg = VGG(width=2)(IMAGES)
    for made in (reference(vgg), reference(MLPHead(hidden=(8,))(vgg)), MLPHead(hidden=(8,))(reference(vgg))):
        assert made(IMAGES.example()).shape == (1, 2, 10)


def test_with_one_tap_only_prob_is_left() -> None:
    made = SpatialSmoothing(taps=(1.0,))(ResNet(depth=8)(IMAGES)).eval()
    x = torch.rand(2, 16, 32, 32)
    assert_close(made.features.stage2[0](x), made.features.stage2[0].module(10 * torch.tanh(x / 10)))


def test_dropout_of_rate_zero_and_the_mean_over_draws() -> None:
    """N draws of nothing are the network itself; the mean of beliefs is never worse than the mean NLL (Jensen)."""
    signature = Signature(input_shape=(3, 32, 32), num_outputs=10, likelihood=Categorical(10))
    network, x = SpatialSmoothing()(ResNet(depth=8, width=4)(signature)).eval(), torch.rand(6, 3, 32, 32)
    still = MCDropout(p=0.0)(network)(x, num_samples=3)
    assert_close(still, network(x).expand(3, -1, -1))
    belief = CategoricalMixture(MCDropout(p=0.3)(network)(x, num_samples=8))
    assert not torch.equal(belief.logits[0], belief.logits[1])
    y = torch.randint(10, (6,))
    assert (-belief.log_prob(y)).mean() <= -belief.member_log_prob(y).mean()


def pooled_maps(network: Network, x: Tensor) -> list[Tensor]:
    """What each stage's pool of a VGG reads, one draw of the dropout masks."""
    seen: list[Tensor] = []
    pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
    hooks = [pool.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for pool in pools]
    network(x, num_samples=1)
    for hook in hooks:
        hook.remove()
    return seen


def test_of_dropout_behind_activations_smoothing_averages_the_masks() -> None:
    """VGG drops behind its activations and smooths before its pools: every stage's share of mask variance falls."""
    torch.manual_seed(2)
    x, shares = images(16), []
    for smoothing in (False, True):
        torch.manual_seed(3)
        network = MCDropout(p=0.3, where="activations")(VGG(width=8)(IMAGES))
        network = (SpatialSmoothing()(network) if smoothing else network).train()
        for _ in range(8):
            network(x)  # BatchNorm statistics
        network.eval()
        with torch.no_grad():
            passes = [torch.stack(stage) for stage in zip(*(pooled_maps(network, x) for _ in range(10)), strict=True)]
        shares.append([float(stage.var(0).mean() / stage.var()) for stage in passes[:4]])  # the fifth has 2 x 2 pixels
    plain, smoothed = shares
    limits = (0.5, 0.6, 0.75, 0.75)  # deeper maps are small, and half of their points have zeros for neighbours
    for before, after, limit in zip(plain, smoothed, limits, strict=True):
        assert after < limit * before, shares
