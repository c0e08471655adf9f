"""BlurPool in whole networks: conv, norm, ReLU, blur; pools; shortcuts; stems; functional activations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.blur_pool import BlurPool2d
from levelhead.likelihood import Signature
from levelhead.network import Network
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.blur_pool import BlurPool
from levelhead.surgeries.mean_field import MeanField
from levelhead.types import NoLayerReplaced

IMAGES = Signature((3, 32, 32), 10)


def stage_shapes(network: Network) -> list[tuple[int, ...]]:
    return [call.output_shape for call in network.trace().calls if call.name.count(".") == 1]


BACKBONES = [
    (ResNet(depth=8, width=4), 4),
    (ResNet(depth=8, width=4, preact=True), 4),
    (ResNet(depth=18, stem="imagenet", width=4), 7),
    (ResNet(depth=50, stem="imagenet", width=2), 7),
    (LeNet(), 2),
    (VGG(depth=11, width=2), 5),
]


@pytest.mark.parametrize("size", [31, 32, 40])
@pytest.mark.parametrize("backbone, places", BACKBONES, ids=repr)
def test_sizes_and_weights_are_kept(backbone, places: int, size: int) -> None:
    network = backbone(Signature((3, size, size), 10))
    made = BlurPool()(network)
    assert len(made.layers(BlurPool2d)) == places
    assert stage_shapes(made) == stage_shapes(network)
    after = {name.replace(".module.", "."): tensor for name, tensor in made.state_dict().items()}
    assert after.keys() == network.state_dict().keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in network.state_dict().items())


def test_one_tap_is_the_network_as_it_was() -> None:
    for backbone in (ResNet(depth=8, width=4), ResNet(depth=8, width=4, preact=True), LeNet()):
        network = backbone(IMAGES).eval()
        x = IMAGES.example(4)
        assert_close(BlurPool(taps=1, stem=True)(network)(x), network(x))


def test_the_blur_is_behind_the_activation_and_before_the_shortcut() -> None:
    made = BlurPool()(ResNet(depth=8, width=4)(IMAGES)).eval()
    block = made.features.stage2[0]
    x = torch.randn(2, 4, 32, 32)
    body, shortcut, blur = block.body, block.shortcut, BlurPool2d(4)
    first = F.relu(body.norm1(F.conv2d(x, body.conv1.weight, padding=1)))
    expected = body.norm2(F.conv2d(blur(first), body.conv2.weight, padding=1))
    beside = shortcut.norm(F.conv2d(blur(x), shortcut.conv.weight))
    assert_close(block(x), F.relu(expected + beside))


def test_stems() -> None:
    network = ResNet(depth=18, stem="imagenet", width=4)(IMAGES).eval()
    x = torch.randn(2, 3, 32, 32)
    old = network.features.stem
    kept, through = BlurPool()(network), BlurPool(stem=True)(network)
    assert [name for name, _ in kept.notes[-1].skipped] == ["features.stem.conv"]
    pooled = BlurPool2d(4)(F.max_pool2d(old.act(old.norm(old.conv(x))), 2, stride=1))
    assert pooled.shape[2:] == (8, 8)
    assert_close(kept.features.stem(x), pooled)
    dense = BlurPool2d(4)(F.relu(old.norm(F.conv2d(x, old.conv.weight, padding=3))))
    assert_close(through.features.stem(x), BlurPool2d(4)(F.max_pool2d(dense, 2, stride=1)))
    assert not through.notes[-1].skipped


@pytest.mark.parametrize("size", [13, 14, 15, 16])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, padding=1),
        nn.AvgPool2d(2, ceil_mode=True),
    ],
    ids=repr,
)
def test_pools(pool: nn.Module, size: int) -> None:
    signature = Signature((3, size, size), 10)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Network(layers, nn.Linear(4, 10), signature, width=4)
    made = BlurPool(taps=3)(network)
    x = torch.randn(2, 4, size, size)
    got = made.features[1](x)
    assert got.shape == pool(x).shape
    if isinstance(pool, nn.MaxPool2d):
        dense = F.max_pool2d(x, pool.kernel_size, 1, pool.padding)
        assert_close(got[..., :-1, :-1], BlurPool2d(3)(dense)[..., : got.shape[2] - 1, : got.shape[3] - 1])
    else:
        assert isinstance(made.features[1], BlurPool2d)
        assert_close(got[..., :-1, :-1], BlurPool2d(3)(x)[..., : got.shape[2] - 1, : got.shape[3] - 1])


def test_wide_averages_patches_and_networks_without_steps() -> None:
    def network(*layers: nn.Module) -> Network:
        return Network(
            nn.Sequential(nn.Conv2d(3, 8, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(8, 10), IMAGES
        )

    with pytest.raises(NoLayerReplaced, match=r"it averages \(5, 5\) pixels, more than the filter's 4"):
        BlurPool()(network(nn.AvgPool2d(5)))
    with pytest.raises(NoLayerReplaced, match="a patch embedding"):
        BlurPool()(network(nn.Conv2d(8, 8, 4, 4)))
    with pytest.raises(NoLayerReplaced, match="BlurPool found nothing"):
        BlurPool()(MLP()(Signature(input_shape=(5,))))


class Functional(nn.Module):
    """Activations are functions, one norm is shared by nobody, and a gate reads the activated map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, 2, padding=1),
            nn.BatchNorm2d(4),
        )
        self.gate, self.next = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.gated = False
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.norm(self.conv(F.relu(self.stem(x)))), inplace=True)
        if self.gated:
            z = z * self.gate(z.mean((2, 3), keepdim=True)).sigmoid()
        return self.fc(self.next(z).mean((2, 3)))


@pytest.mark.parametrize("gated", [False, True])
def test_functional_activations(gated: bool) -> None:
    module = Functional().eval()
    module.gated = gated
    made = BlurPool()(Network.wrap(module, head="fc", signature=IMAGES)).eval()
    x = torch.rand(2, 3, 32, 32)
    blur = BlurPool2d(4)
    dense = F.conv2d(F.relu(module.stem(x)), module.conv.weight, module.conv.bias, padding=1)
    if gated:  # the map is read by a product too: the blur stands right behind the convolution
        z = F.relu(module.norm(blur(dense)))
        z = z * module.gate(z.mean((2, 3), keepdim=True)).sigmoid()
        assert made.notes[-1].converted == ("features.conv",)
    else:
        z = blur(F.relu(module.norm(dense)))
        assert made.notes[-1].converted == ("features.conv", "features.next")
    assert_close(made(x)[0], module.fc(module.next(z).mean((2, 3))))


def test_before_and_after_surgeries_that_give_members_or_draws() -> None:
    x = IMAGES.example(4)
    for surgery in (BatchEnsemble(2), MeanField()):
        torch.manual_seed(0)
        first = BlurPool()(surgery(ResNet(depth=8, width=4)(IMAGES))).eval()
        torch.manual_seed(0)
        last = surgery(BlurPool()(ResNet(depth=8, width=4)(IMAGES))).eval()
        assert len(first.layers(BlurPool2d)) == len(last.layers(BlurPool2d)) == 4
        assert_close(first(x), last(x))


def test_a_convolution_that_is_called_twice_is_blurred_at_each_call() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.act = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, padding=1), nn.ReLU()
            self.fc = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            z = self.act(self.conv(self.act(self.conv(self.stem(x)))))
            return self.fc(z.mean((2, 3)))

    made = BlurPool()(Network.wrap(Siamese(), head="fc", signature=IMAGES))
    assert made.notes[-1].converted == ("features.conv",)
    assert [call.output_shape[2] for call in made.trace().calls if isinstance(call.module, BlurPool2d)] == [16, 8]


def test_validation() -> None:
    with pytest.raises(ValueError, match="BlurPool: taps must be from 1 to 7, got 9"):
        BlurPool(taps=9)
    with pytest.raises(ValueError, match=r"BlurPool: padding must be one of .*; got 'same'"):
        BlurPool(padding="same")
    with pytest.raises(ValueError, match="convolutions and pools are both False"):
        BlurPool(convolutions=False, pools=False)
