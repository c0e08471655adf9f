"""Hidden layers in place of the mean over pixels."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.dropout import DropoutAs
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.mlp_head import MLPHead
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.types import CannotCompose

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10, likelihood=Categorical(10))


@pytest.mark.parametrize("pool, inputs", [(7, 64 * 49), (8, 64 * 64), (20, 64 * 64), (1, 64)])
def test_the_mean_over_pixels_gives_way_to_the_map(pool: int, inputs: int) -> None:
    network = ResNet(depth=8)(IMAGES).eval()
    made = MLPHead(hidden=(32, 16), pool=pool)(network).eval()
    linear = [layer for layer in made.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(inputs, 32), (32, 16), (16, 10)]
    assert made(IMAGES.example(4)).shape == (1, 4, 10)
    assert made.width == 16
    assert len(network.features) == len(made.features) - 1  # the argument is untouched


def test_it_is_what_it_says() -> None:
    network = ResNet(depth=8)(IMAGES).eval()
    made = MLPHead(hidden=(32,), pool=8)(network).eval()
    x = IMAGES.example(4)
    z = network.features[: list(dict(network.features.named_children())).index("pool")](x).flatten(1)
    assert_close(made(x)[0], made.head(made.features.mlp.linear1(z).relu()))


def test_networks_without_a_mean_only_get_hidden_layers() -> None:
    made = MLPHead(hidden=(32,))(VGG(width=4)(IMAGES))  # its last max-pool leaves one pixel
    assert [note.converted for note in made.notes] == [("features.mlp",), ("head",)]
    assert MLPHead(hidden=(32,))(MLP()(Signature(input_shape=(5,)))).width == 32


def test_its_dropout_acts_in_training_and_draws_on_request() -> None:
    made = MLPHead(hidden=(64,))(VGG(width=4)(IMAGES))
    x = IMAGES.example(4)
    assert torch.equal(made.eval()(x), made(x))
    beside = MCDropout(p=0.3, where="activations")(made)
    assert not beside.layers(DropoutAs)
    assert len(MCDropout(where="existing")(made).layers(DropoutAs)) == 1


class InCode(nn.Module):
    """The mean over pixels is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def test_refusals() -> None:
    with pytest.raises(CannotCompose, match="averages its last map in code"):
        MLPHead()(Network.wrap(InCode().eval(), head="fc", signature=IMAGES))
    with pytest.raises(CannotCompose, match=r"wants a linear head .*got RandomFeatureReadout"):
        MLPHead()(RandomFeatureHead(rank=8)(ResNet(depth=8)(IMAGES)))
    for options, says in (({"hidden": ()}, "hidden"), ({"p": 1.0}, "p must"), ({"pool": 0}, "pool")):
        with pytest.raises(ValueError, match=f"MLPHead: {says}"):
            MLPHead(**options)
