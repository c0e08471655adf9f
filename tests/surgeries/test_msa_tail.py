"""MSA at the ends of stages: which blocks go, what stays, what is refused, and the walk of the build-up rule."""

import pytest
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.alter_net import AlterNet
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.msa_block import MSABlock
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.surgeries.alias_free import AliasFree
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.msa_tail import MSATail, build_up, rooms
from levelhead.surgeries.packed_ensemble import PackedEnsemble
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.types import CannotCompose, NoLayerReplaced

IMAGES = Signature((3, 32, 32), 10)
SMALL = ResNet(depth=18, width=4)


def converted(network: Network) -> list[str]:
    return [name.removeprefix("features.") for name in network.notes[-1].converted]


@pytest.mark.parametrize(
    "backbone, msa, places",
    [
        (ResNet(depth=8), None, ["stage1.0"]),
        (ResNet(depth=20, width=4), None, ["stage2.2", "stage3.2"]),
        (SMALL, None, ["stage2.1", "stage3.1", "stage4.1"]),
        (SMALL, (0, 0, 0, 1), ["stage4.1"]),
        (ResNet(depth=50, width=4), (0, 1, 3, 1), ["stage2.3", "stage3.1", "stage3.3", "stage3.5", "stage4.2"]),
        (VGG(depth=13, width=4), (0, 0, 0, 1, 1), ["stage4.conv2", "stage5.conv2"]),
    ],
    ids=repr,
)
def test_places(backbone, msa, places: list[str]) -> None:
    network = backbone(IMAGES)
    made = MSATail(msa)(network)
    assert converted(made) == places
    assert len(made.layers(MSABlock)) == len(places)
    assert made(IMAGES.example(2)).shape == (1, 2, 10)
    assert rooms(made) == rooms(network) or isinstance(backbone, VGG)  # there the MSA blocks are the only blocks now


def test_on_a_pre_activation_resnet_it_is_alternet() -> None:
    spec = ResNet(depth=18, width=8, preact=True)
    made = MSATail((0, 1, 1, 1))(spec(IMAGES)).eval()
    alter = AlterNet(depth=18, width=8)(IMAGES).eval()
    alter.load_state_dict(made.state_dict())
    x = IMAGES.example(2)
    assert_close(made(x), alter(x))
    sizes = [[layer.bias.windows.size for layer in (block.attention.windows,)] for block in made.layers(MSABlock)]
    assert sizes == [[4], [4], [4]]


def test_blocks_that_start_at_zero_are_the_identity() -> None:
    network = SMALL(IMAGES).eval()
    made = MSATail((0, 0, 0, 1), zero_init=True)(network).eval()
    x = IMAGES.example(2)
    z = network.features[:-3](x)  # to the end of stage 3
    kept = network.features.stage4[0](z)
    assert_close(made.embed(x)[0], kept.mean((2, 3)))


def test_the_norm_is_the_networks() -> None:
    for norm, kind in (("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        made = MSATail()(ResNet(depth=20, width=8, norm=norm)(IMAGES))
        assert isinstance(made.layers(MSABlock)[0].entry.norm, kind)


def test_bottlenecks_stay_narrow_and_later_stages_get_more_heads() -> None:
    made = MSATail((1, 1, 1, 1))(ResNet(depth=50, width=16)(IMAGES))
    blocks = made.layers(MSABlock)
    assert [block.body.conv.out_channels for block in blocks] == [16, 32, 64, 128]
    assert [block.attention.windows.cut.heads for block in blocks] == [3, 6, 12, 24]
    assert {block.attention.out.in_channels // block.attention.windows.cut.heads for block in blocks} == {16}
    five = MSATail(heads=(1, 2), dim_head=3, window=2)(VGG(depth=13, width=4)(IMAGES)).layers(MSABlock)
    assert [block.attention.out.in_channels for block in five] == [6] * 4
    assert {block.attention.windows.cut.windows.size for block in five} == {2}


def test_other_surgeries_before_and_after() -> None:
    x = IMAGES.example(2)
    both = SpatialSmoothing()(MSATail()(SMALL(IMAGES)))
    assert both.eval()(x).shape == (1, 2, 10)
    after = MSATail()(SpatialSmoothing()(SMALL(IMAGES)))
    after.load_state_dict(both.state_dict())
    assert_close(after.eval()(x), both(x))
    drawing = MCDropout(num_samples=3)(MSATail()(SMALL(IMAGES))).eval()
    assert drawing(x, num_samples=3).std(0).max() > 0
    members = BatchEnsemble(num_members=2)(MSATail()(SMALL(IMAGES)))
    assert members(x).shape == (2, 2, 10)


@pytest.mark.parametrize("backbone", [LeNet(), ResNet(depth=8, width=4)], ids=repr)
def test_networks_without_room(backbone) -> None:
    network = backbone(IMAGES)
    if isinstance(backbone, LeNet):
        with pytest.raises(NoLayerReplaced, match=r"found no block .* use alter_net"):
            MSATail()(network)
    else:
        with pytest.raises(CannotCompose, match=r"msa=\(0, 1, 0\) wants 1 MSA blocks in stage 2, whose 1 blocks .* 0"):
            MSATail((0, 1, 0))(network)


def test_refusals() -> None:
    with pytest.raises(NoLayerReplaced, match="found no block"):
        MSATail()(MLP()(Signature((5,))))
    network = SMALL(IMAGES)
    with pytest.raises(CannotCompose, match="one number a stage; this network has 4 stages, of 2, 2, 2, 2 blocks"):
        MSATail((1, 1))(network)
    for surgery in (BatchEnsemble(num_members=2), PackedEnsemble(num_members=2)):
        with pytest.raises(CannotCompose, match="hold parameters of members"):
            MSATail()(surgery(ResNet(depth=20, width=8)(IMAGES)))
    for surgery in (SpectralNorm(), MCDropout(), AliasFree()):
        with pytest.raises(CannotCompose, match=f"what {type(surgery).__name__} put there: put msa_tail before"):
            MSATail()(surgery(network))
    with pytest.raises(CannotCompose, match="is an MSA block: put all of them into the msa of one"):
        MSATail()(MSATail()(network))
    frozen = SMALL(IMAGES)
    frozen.freeze(frozen.features.stage4)
    with pytest.raises(CannotCompose, match=r"features\.stage4\.1, whose weights are frozen"):
        MSATail()(frozen)
    assert converted(MSATail((0, 0, 1, 0))(frozen)) == ["stage3.1"]


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"heads": ()}, "heads"),
        ({"dim_head": 0}, "dim_head"),
        ({"window": 0}, "window"),
        ({"variant": "C"}, "variant"),
        ({"msa": (0, 0)}, "msa"),
        ({"msa": (1, -1)}, "msa"),
    ],
)
def test_mistakes(fields, says: str) -> None:
    with pytest.raises(ValueError, match=f"MSATail: {says}"):
        MSATail(**fields)


def test_the_walk_reproduces_the_published_one() -> None:
    """Accuracies on CIFAR-100, read off the paper's figure; the rule ends at the layout that it names."""
    published = {
        (0, 0, 0, 0): 82.5,
        (0, 0, 0, 1): 83.45,
        (0, 0, 0, 2): 83.65,
        (0, 0, 1, 2): 83.8,
        (0, 0, 2, 2): 83.5,
        (0, 1, 1, 2): 84.0,
        (0, 2, 1, 2): 83.4,
        (1, 1, 1, 2): 83.8,
    }
    found = build_up(published.__getitem__, (1, 2, 3, 2))  # half of 3, 4, 6, 4 blocks
    assert (found.msa, found.score) == ((0, 1, 1, 2), 84.0)
    assert [msa for msa, _ in found.tried] == list(published)


def test_a_walk_that_gains_nothing_tries_every_stage_once() -> None:
    found = build_up(lambda msa: -sum(msa), (1, 2, 0))
    assert found.msa == (0, 0, 0)
    assert [msa for msa, _ in found.tried] == [(0, 0, 0), (0, 1, 0), (1, 0, 0)]
    with pytest.raises(ValueError, match="build_up: most"):
        build_up(lambda msa: 0.0, (0, 0))
