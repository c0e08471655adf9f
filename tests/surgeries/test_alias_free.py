"""Alias-free layers in our networks and in others': where they stand, what each switch does, what it keeps."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.analyses.equivariance import band_limited, equivariance_error
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.aa_conv import AAConv2d
from levelhead.layers.aa_max_pool import AAMaxPool2d
from levelhead.layers.blur_relu import BlurReLU
from levelhead.layers.quantile_relu import QuantileReLU
from levelhead.layers.smooth import Smooth
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.surgeries.alias_free import AliasFree
from levelhead.types import NoLayerReplaced

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10)
NEW = (AAConv2d, AAMaxPool2d, BlurReLU, QuantileReLU, Smooth)
NONE: dict[str, Any] = {"conv": "none", "relu": "none", "pool": False}


def counts(network: Network) -> dict[str, int]:
    return {kind.__name__: len(network.layers(kind)) for kind in NEW if network.layers(kind)}


@pytest.mark.parametrize(
    "backbone, expected",
    [
        (ResNet(depth=8), {"AAConv2d": 4, "BlurReLU": 7}),
        (
            ResNet(depth=18, stem="imagenet", width=4),
            {"AAConv2d": 7, "AAMaxPool2d": 1, "BlurReLU": 13},
        ),  # last: 1 pixel
        (ResNet(depth=8, preact=True), {"AAConv2d": 4, "BlurReLU": 7}),
        (VGG(width=2), {"AAMaxPool2d": 5, "BlurReLU": 8}),
        (LeNet(), {"AAMaxPool2d": 2, "BlurReLU": 2}),
    ],
    ids=repr,
)
def test_places_and_what_stays(backbone: Any, expected: dict[str, int]) -> None:
    network = backbone(IMAGES).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = IMAGES.example(2)
    outputs = network(x)
    made = AliasFree()(network)
    assert counts(made) == expected
    assert made(x).shape == outputs.shape
    assert not torch.allclose(made(x), outputs)
    after = {name.replace(".module.", "."): tensor for name, tensor in made.state_dict().items()}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(network(x), outputs)


SWITCHES: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({**NONE, "conv": "filter_first"}, {"AAConv2d": 7}),
    ({**NONE, "conv": "conv_first"}, {"AAConv2d": 7}),
    ({**NONE, "relu": "quantile"}, {"QuantileReLU": 13}),
    ({**NONE, "relu": "blur"}, {"BlurReLU": 13}),
    ({**NONE, "relu": "quantile+blur"}, {"BlurReLU": 13}),
    ({**NONE, "pool": True}, {"AAMaxPool2d": 1}),
    ({**NONE, "initial_blur": True}, {"Smooth": 1}),
    ({"blocks": 1, "initial_blur": True}, {"AAConv2d": 1, "AAMaxPool2d": 1, "BlurReLU": 1, "Smooth": 1}),
    ({"blocks": 2}, {"AAConv2d": 1, "AAMaxPool2d": 1, "BlurReLU": 5}),
    ({"blocks": 3}, {"AAConv2d": 3, "AAMaxPool2d": 1, "BlurReLU": 9}),
]


@pytest.mark.parametrize("switches, expected", SWITCHES, ids=str)
def test_each_switch_alone(switches: dict[str, Any], expected: dict[str, int]) -> None:
    made = AliasFree(**switches)(ResNet(depth=18, stem="imagenet", width=4)(IMAGES))
    assert counts(made) == expected
    made(IMAGES.example(2)).sum().backward()


def test_fields_reach_the_layers() -> None:
    network = ResNet(depth=18, stem="imagenet", width=4)(IMAGES)
    made = AliasFree(q=0.2, low=1, up=3, taps=5, padding="reflect", level=True)(network)
    relu = made.layers(BlurReLU)[0]
    assert (relu.q, relu.low, relu.up, relu.taps, relu.padding, relu.level) == (0.2, 1, 3, 5, "reflect", True)
    pool = made.layers(AAMaxPool2d)[0]
    assert (pool.kernel_size, pool.stride, pool.padding, pool.taps, pool.margin, pool.level) == (
        3,
        2,
        1,
        5,
        "reflect",
        True,
    )
    conv = made.layers(AAConv2d)[0]
    assert (conv.low_pass.cutoff, conv.low_pass.taps, conv.low_pass.padding) == ((0.25, 0.25), 5, "reflect")
    assert {layer.q for layer in AliasFree(relu="blur")(network).layers(BlurReLU)} == {0.0}


def test_one_stage_by_hand() -> None:
    network = VGG(width=2)(IMAGES).eval()
    stage = network.features.stage1
    made = AliasFree(blocks=1)(network).features.stage1
    x = torch.rand(2, 3, 32, 32)
    assert_close(made(x), AAMaxPool2d(2, 2, ceil_mode=True)(BlurReLU(q=0.4)(stage.norm1(stage.conv1(x)))))


def test_the_initial_blur_is_in_front_of_the_first_convolution() -> None:
    network = VGG(width=2)(IMAGES).eval()
    made = AliasFree(**NONE, initial_blur=True)(network)
    assert made.notes[-1].converted == ("features.stage1.conv1",)
    f = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    x = torch.rand(2, 3, 32, 32)
    blurred = F.conv2d(x, torch.outer(f, f).expand(3, 1, 5, 5), padding=2, groups=3)
    assert_close(made.features.stage1.conv1(x), network.features.stage1.conv1(blurred))


class Mixed(nn.Module):
    """Functional and shared ReLUs, ReLUs on vectors, average pools, a pool of two widths and patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, stride=4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.everywhere = nn.ReLU(inplace=True), nn.ReLU()
        self.average, self.wide = nn.AvgPool2d(2), nn.MaxPool2d((1, 2))
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.patches(x))
        z = self.everywhere(self.conv(self.relu(self.conv(z))))
        return self.fc(self.everywhere(self.wide(self.average(z)).mean((2, 3))))


def test_what_is_left_is_noted_with_the_reason() -> None:
    network = Network.wrap(Mixed().eval(), head="fc", signature=IMAGES)
    note = AliasFree()(network).notes[-1]
    assert note.converted == ("features.relu",)
    left = {name: reason.split(":")[0] for name, reason in note.skipped}
    assert left == {
        "features": "its code calls ReLU as a function",
        "features.patches": "its windows tile the image",
        "features.everywhere": "this ReLU also acts on what is no map",
        "features.average": "average pooling has a low-pass filter of its own",
        "features.wide": "its window, stride or dilation is not the same along both axes, or dilated",
    }


def test_in_place_relus_are_replaced_and_values_before_them_survive() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Network(layers, nn.Linear(4, 10), IMAGES, width=4)
    made = AliasFree()(network)
    assert not made.layers(nn.ReLU)
    seen: list[Tensor] = []
    made.features[0].register_forward_hook(lambda module, args, out: seen.append(out))
    made(IMAGES.example(2))
    assert seen[0].min() < 0


class Twice(nn.Module):
    """One ReLU in two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU()
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu(self.conv1(x)))
        return self.fc(self.pool2(self.relu(self.conv2(x))).mean((2, 3)))


def test_a_module_shared_with_later_blocks_is_left() -> None:
    network = Network.wrap(Twice().eval(), head="fc", signature=IMAGES)
    note = AliasFree(blocks=1)(network).notes[-1]
    assert note.converted == ("features.pool1",)
    assert [name for name, _ in note.skipped] == ["features.relu"]
    assert set(AliasFree()(network).notes[-1].converted) == {f"features.{n}" for n in ("pool1", "pool2", "relu")}


def test_shared_layers_stay_shared() -> None:
    made = AliasFree()(Network.wrap(Twice().eval(), head="fc", signature=IMAGES))
    assert len(made.layers(BlurReLU)) == 1


def test_a_second_time_there_is_nothing_left() -> None:
    made = AliasFree()(ResNet(depth=8)(IMAGES))
    with pytest.raises(NoLayerReplaced, match="AliasFree found nothing"):
        AliasFree()(made)
    with pytest.raises(NoLayerReplaced):
        AliasFree()(MLP()(Signature(input_shape=(5,))))


def test_a_network_moves_more_evenly_with_its_image() -> None:
    """Untrained, the maps in front of the global pool, by two pixels of sixteen that steps of four leave unequal."""
    torch.manual_seed(0)
    network = ResNet(depth=8)(IMAGES).train()
    x = band_limited((8, 3, 32, 32), below=0.25, generator=torch.Generator().manual_seed(1))
    errors = []
    for made in (
        network,
        AliasFree(**NONE | {"conv": "filter_first"})(network),
        AliasFree(padding="circular")(network),
    ):
        for module in made.modules():
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                module.padding_mode = "circular"
                module._reversed_padding_repeated_twice = [module.padding[0]] * 4
        maps = nn.Sequential(
            *(stage for name, stage in made.features.named_children() if name not in ("pool", "flatten"))
        )
        made(x)
        errors.append(equivariance_error(maps.eval(), x, shift=(2, 2)).error)
    assert errors[0] > errors[1] > 1.5 * errors[2], errors


@pytest.mark.parametrize(
    "options, field",
    [
        ({"conv": "blur"}, "conv"),
        ({"relu": "aa"}, "relu"),
        ({"blocks": 0}, "blocks"),
        ({"q": 1.0}, "q"),
        ({"low": 0}, "low"),
        ({"taps": 6}, "taps"),
        ({"padding": "same"}, "padding"),
        (NONE, "conv='none', relu='none', pool=False"),
    ],
)
def test_validation(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"AliasFree: {field}"):
        AliasFree(**options)
