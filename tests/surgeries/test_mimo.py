"""MIMO: what is read together, what each head answers, and the batches that train it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.slots import Joined, Slots
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network, build
from levelhead.objectives.mimo_batches import MIMOBatches
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.mean_field import MeanField
from levelhead.surgeries.mimo import MIMO
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose, NoLayerReplaced

IMAGES = Signature(
    input_shape=(3, 16, 16), num_outputs=5, likelihood=Categorical(5), mean=(0.2, 0.4, 0.6), std=(0.5,) * 3
)
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
BACKBONES = [(MLP(hidden=(8, 8)), TABLE), (LeNet(), IMAGES), (ResNet(depth=8), IMAGES)]


def first_layer(network: Network) -> Joined:
    return next(m for m in network.modules() if isinstance(m, Joined))


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_slots_stand_side_by_side_on_the_channels(backbone, signature: Signature) -> None:
    made = MIMO(num_members=2)(backbone(signature)).eval()
    seen = []
    joined = first_layer(made)
    joined.layer.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    joined.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    rows = torch.cat([signature.example(3, seed=1), signature.example(3, seed=2)])
    made(rows, per_member=True)
    together, apart = seen
    axis = joined.channel_axis
    assert together.shape[0] == 3
    assert_close(together, torch.cat([apart[:3], apart[3:]], dim=axis))


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_an_image_in_every_slot_costs_one_pass(backbone, signature: Signature) -> None:
    made = MIMO(num_members=3)(backbone(signature)).eval()
    x = signature.example(4)
    assert made(x).shape == (3, 4, signature.num_outputs)
    assert_close(made(x), made(torch.cat([x, x, x]), per_member=True))
    features = made.embed(x)
    assert_close(features[0], features[2])
    for k in range(3):
        assert_close(made(x)[k], made.head.members[k](features[k]))


@pytest.mark.parametrize("backbone, signature", BACKBONES, ids=repr)
def test_swapping_slots_with_their_weights_and_heads_changes_nothing(backbone, signature: Signature) -> None:
    made = MIMO(num_members=2)(backbone(signature)).eval()
    rows = torch.cat([signature.example(3, seed=1), signature.example(3, seed=2)])
    before = made(rows, per_member=True)
    layer = first_layer(made).layer
    with torch.no_grad():
        layer.weight.copy_(torch.cat(layer.weight.chunk(2, dim=1)[::-1], dim=1))
    made.head.members = nn.ModuleList(list(made.head.members)[::-1])
    assert_close(made(rows.roll(3, 0), per_member=True), before.flip(0))


def test_the_layers_between_keep_their_weights_and_signals_their_size() -> None:
    torch.manual_seed(0)
    network = ResNet(depth=8)(IMAGES)
    made = MIMO(num_members=4)(network)
    for name, tensor in network.state_dict().items():
        if name.startswith("features.stage"):
            assert torch.equal(made.state_dict()[name], tensor)
    old, new = network.features.stem.conv, first_layer(made).layer
    assert_close(old.weight.norm(), new.weight.norm(), rtol=0.1, atol=0)


def test_members_and_samples_share_the_rows() -> None:
    x = IMAGES.example(4)
    for surgery in (MCDropout(p=0.5), MeanField(init_scale=0.5, within="features")):
        first, second = (MIMO(num_members=2), surgery)[:: 1 if isinstance(surgery, MeanField) else -1]
        made = second(first(ResNet(depth=8)(IMAGES))).eval()
        drawn = made(x[:1].expand(4, -1, -1, -1), num_samples=3).reshape(2, 3, 4, 5)
        assert not torch.allclose(drawn[:, 0], drawn[:, 1])
        if isinstance(surgery, MeanField):  # a draw is one function for all rows
            assert_close(drawn[..., :1, :].expand_as(drawn), drawn, rtol=1e-4, atol=1e-4)


def test_what_cannot_have_slots_is_refused_with_advice() -> None:
    surgery = MIMO()
    with pytest.raises(CannotCompose, match="put it before surgeries"):
        surgery(BatchEnsemble()(LeNet()(IMAGES)))
    with pytest.raises(CannotCompose, match="wants a linear head, got"):
        surgery(RandomFeatureHead(rank=8)(LeNet()(IMAGES)))
    grouped = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(CannotCompose, match="ungrouped convolution, got Conv2d"):
        surgery(Network(grouped, nn.Linear(6, 5), IMAGES))
    with pytest.raises(NoLayerReplaced, match="could read several inputs"):
        surgery(Network(nn.Flatten(), nn.Linear(768, 5), IMAGES))
    with pytest.raises(ValueError, match="num_members must"):
        MIMO(num_members=0)


def test_a_rebuilt_network_takes_the_saved_weights() -> None:
    made, rebuilt = (build(ResNet(depth=8), (MIMO(),), IMAGES) for _ in range(2))
    made(IMAGES.example(8))
    rebuilt.load_state_dict(made.state_dict())
    x = IMAGES.example(4)
    assert torch.equal(rebuilt.eval()(x), made.eval()(x))


def test_the_members_learn_to_answer_for_their_own_slot() -> None:
    task = stripes(n=128)
    recipe = Recipe(
        backbone=MLP(hidden=(64,)),
        surgery=(MIMO(num_members=2),),
        regularisers=(MIMOBatches(),),
        sampler=AdamW(epochs=30, batch_size=32, lr=3e-3),
    )
    network = recipe.fit(task, 0).network
    assert len(network.layers(Slots)) == 1
    rows = next(task.val.ordered(len(task.val)))
    x, y = rows.x, rows.y
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network(torch.cat([x, x[order]]), per_member=True)
    for k, labels in enumerate((y, y[order])):
        assert (outputs[k].argmax(-1) == labels).double().mean() > 0.7, k
