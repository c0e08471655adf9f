"""Masks: their law, what they hide from whom, and that they are saved."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.masks import Masks, common, draw_masks
from levelhead.likelihood import Categorical, Signature
from levelhead.network import build
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.masksembles import Masksembles
from levelhead.types import CannotCompose, NoLayerReplaced

IMAGES = Signature(input_shape=(3, 16, 16), num_outputs=5, likelihood=Categorical(5))
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
BACKBONES = [(MLP(hidden=(16, 16)), TABLE), (LeNet(), IMAGES), (ResNet(depth=8), IMAGES)]


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("channels", [4, 8, 10, 64, 512])
def test_every_mask_has_as_many_ones_and_every_channel_is_used(channels: int, scale: float) -> None:
    torch.manual_seed(0)
    masks = draw_masks(channels, 4, scale)
    assert masks.shape == (4, channels)
    assert masks.any(0).all()
    assert len(set(masks.sum(1).tolist())) == 1
    if scale == 1.0:
        assert masks.all()


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0])
def test_what_two_masks_have_in_common(scale: float) -> None:
    torch.manual_seed(0)
    measured = sum(common(draw_masks(512, 4, scale).float()) for _ in range(20)) / 20
    assert_close(measured, 1 / (2 * scale - 1), rtol=0.05, atol=0)


def test_a_large_scale_leaves_nothing_in_common_where_the_channels_can_be_shared_out() -> None:
    assert draw_masks(8, 4, 50.0).sum(1).tolist() == [2] * 4
    assert common(draw_masks(8, 4, 50.0).float()) == 0.0
    assert draw_masks(5, 2, 1e6).sum(1).tolist() == [3, 3]  # one channel is shared: none may be idle


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_ones_are_the_network_itself(backbone, signature: Signature) -> None:
    network = backbone(signature).eval()
    made = Masksembles(scale=1.0)(network)
    x = signature.example(4)
    assert_close(made(x), network(x).expand(4, -1, -1), rtol=1e-4, atol=1e-5)


def test_hidden_channels_do_not_matter_to_a_member_and_matter_to_another() -> None:
    made = Masksembles(num_members=3, where="head")(MLP(hidden=(16,))(TABLE)).double()
    mask = made.layers(Masks)[0].masks
    made(TABLE.example(4).double())[1].sum().backward()
    columns = made.head.weight.grad.abs().sum(0)
    assert (columns[mask[1] == 0] == 0).all()
    assert columns[mask[1] == 1].any()
    assert (mask[0] != mask[1]).any()


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_masks_multiply_what_the_layers_read(backbone, signature: Signature) -> None:
    made = Masksembles(num_members=3)(backbone(signature)).eval()
    for layer in made.layers(Masks):
        seen = []
        hook = layer.register_forward_hook(lambda module, args, output, seen=seen: seen.extend([args[0], output]))
        made(signature.example(2))
        hook.remove()
        before, after = (z.reshape(3, -1, *z.shape[1:]).transpose(0, 1) for z in seen)
        shape = (3, -1) if layer.channel_axis == -1 else (3, -1, *(1,) * (before.ndim - 3))
        assert_close(after, before * layer.masks.reshape(shape))


def test_a_rebuilt_network_takes_the_saved_masks() -> None:
    torch.manual_seed(0)
    made = build(ResNet(depth=8), (Masksembles(),), IMAGES).eval()
    torch.manual_seed(1)
    rebuilt = build(ResNet(depth=8), (Masksembles(),), IMAGES).eval()
    assert not torch.equal(made.layers(Masks)[0].masks, rebuilt.layers(Masks)[0].masks)
    rebuilt.load_state_dict(made.state_dict())
    x = IMAGES.example(4)
    assert torch.equal(rebuilt(x), made(x))


def test_places() -> None:
    network = ResNet(depth=8)(IMAGES)
    assert Masksembles()(network).notes[-1].converted == tuple(f"features.stage{i}.0.body.conv2" for i in (1, 2, 3))
    assert Masksembles(where="head")(network).notes[-1].converted == ("features.masks",)
    layers = Masksembles(where="layers")(LeNet()(IMAGES))
    assert len(layers.layers(Masks)) == 4
    with pytest.raises(NoLayerReplaced, match="Masksembles found nothing"):
        Masksembles(where="blocks")(LeNet()(IMAGES))


def test_it_shares_the_axis_of_members() -> None:
    both = Masksembles()(BatchEnsemble()(LeNet()(IMAGES)))
    assert both(IMAGES.example(2)).shape == (4, 2, 5)
    with pytest.raises(CannotCompose, match="one surgery declared 4, another 3"):
        Masksembles(num_members=3)(BatchEnsemble()(LeNet()(IMAGES)))


def test_validation() -> None:
    for options in ({"num_members": 0}, {"scale": 0.5}, {"where": "all"}):
        with pytest.raises(ValueError, match=f"Masksembles: {next(iter(options))} must"):
            Masksembles(**options)
