"""MC dropout: where it stands, that eval() draws nothing, and that the draws are those of torch's dropout."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vgg import VGG
from levelhead.layers.dropout import Dropout, DropoutAs, FunctionalDropout
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.passes import still
from levelhead.predictive import CategoricalMixture
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.types import NoLayerReplaced

IMAGES = Signature(input_shape=(3, 32, 32), num_outputs=10, likelihood=Categorical(10))
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))


def converted(network: Network) -> list[str]:
    return [name.removeprefix("features.") for note in network.notes for name in note.converted]


@pytest.mark.parametrize(
    "backbone, surgery, places",
    [
        (ResNet(depth=8), MCDropout(), [f"stage{i}.0.body.conv2" for i in (1, 2, 3)]),
        (ResNet(depth=50, width=2), MCDropout(), ["body.conv3"] * 16),
        (ResNet(depth=8, preact=True), MCDropout(), [f"stage{i}.0.body.conv2" for i in (1, 2, 3)]),
        (ResNet(depth=8), MCDropout(where="head"), ["dropout"]),
        (LeNet(), MCDropout(), ["stage2.conv", "hidden1.linear", "hidden2.linear", "dropout"]),
        (VGG(depth=11, width=2), MCDropout(), [*["conv"] * 7, "dropout"]),
        (VGG(depth=11, width=2), MCDropout(where="activations"), [*["act"] * 8]),
        (VGG(depth=11, width=2), MCDropout(where="activations", last=3), ["stage4.act2", "stage5.act1", "stage5.act2"]),
        (VGG(depth=11, width=2, preact=True), MCDropout(where="convolutions"), [*["conv"] * 8]),
        (VGG(depth=11, width=2), MCDropout(where="blocks_or_activations"), [*["act"] * 8]),
        (ResNet(depth=8), MCDropout(where="blocks_or_activations"), [f"stage{i}.0.body.conv2" for i in (1, 2, 3)]),
    ],
    ids=str,
)
def test_places(backbone, surgery: MCDropout, places: list[str]) -> None:
    made = surgery(backbone(IMAGES))
    found = converted(made)
    assert len(found) == len(places)
    assert all(place in name for place, name in zip(places, found, strict=True)), found
    assert made.num_samples == 10
    assert {layer.p for layer in made.layers(Dropout)} == {0.1}


def test_layers_in_a_residual_network_are_all_but_the_first() -> None:
    made = MCDropout(p=0.2, where="layers")(ResNet(depth=8)(IMAGES))
    assert len(converted(made)) == 6 + 2 + 1  # two convolutions a block, two shortcuts, the head
    assert isinstance(made.head, nn.Linear)


@pytest.mark.parametrize("backbone", [ResNet(depth=8), LeNet(), VGG(depth=11, width=2)], ids=repr)
@pytest.mark.parametrize(
    "surgery",
    [MCDropout(), MCDropout(where="layers"), MCDropout(where="head"), MCDropout(where="activations"), MCDropout(p=0.0)],
    ids=repr,
)
def test_eval_is_the_network_itself_and_draws_differ(backbone, surgery: MCDropout) -> None:
    network = backbone(IMAGES)
    network(IMAGES.example(8))  # statistics other than the initial ones
    network.eval()
    x = IMAGES.example(4)
    made = surgery(network)
    outputs = made(x)
    assert torch.equal(outputs, network(x))
    statistics = {name: buffer.clone() for name, buffer in made.named_buffers()}
    draws = made(x, num_samples=3)
    assert draws.shape == (3, 4, 10)
    if surgery.p == 0.0:
        assert_close(draws, outputs.expand(3, -1, -1))
    else:
        assert not torch.allclose(draws[0], draws[1])
        assert not torch.equal(made(x, num_samples=3), draws)
    assert torch.equal(made(x), outputs)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in made.named_buffers())
    with still(made.train()):
        assert_close(made(x), outputs)
    assert not network.notes


def test_draws_are_dropout_before_every_layer_but_the_first() -> None:
    network = MLP(hidden=(16, 16))(TABLE).eval()
    made = MCDropout(p=0.3)(network)
    x = torch.randn(5, 6)
    first, second = network.features.hidden1, network.features.hidden2
    torch.manual_seed(4)
    got = made(x, num_samples=2)
    torch.manual_seed(4)
    z = first(network.features.normalise(x)).repeat(2, 1)
    expected = network.head(F.dropout(second(F.dropout(z, 0.3)), 0.3))
    assert_close(got, expected.reshape(2, 5, 3))


def test_the_features_before_the_first_draw_are_computed_once() -> None:
    made = MCDropout(where="head")(ResNet(depth=8)(IMAGES)).eval()
    rows = []
    made.features.pool.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    made(IMAGES.example(4), num_samples=50)
    assert rows == [4]


class Foreign(nn.Module):
    """Modules and functions that drop, as others write them; one module used twice."""

    def __init__(self, rates: tuple[float, float, float] = (0.2, 0.3, 0.4)) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.drop = nn.Dropout(rates[0])
        self.alpha = nn.Sequential(nn.AlphaDropout(rates[1]))
        self.rate = rates[2]

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.fc1(x)).relu()
        x = self.alpha(self.drop(self.fc2(x)).relu())
        if self.rate:
            x = F.dropout(x, p=self.rate, training=self.training)
        return self.fc3(x)


def test_dropout_in_the_last_blocks_alone_leaves_a_longer_prefix() -> None:
    network = ResNet(depth=20, width=4)(IMAGES)
    made = MCDropout(where="blocks", last=3)(network)
    assert made.notes[-1].converted == tuple(f"features.stage3.{block}.body.conv2" for block in range(3))
    rows = []
    made.features.stage2.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    made.eval()(IMAGES.example(2), num_samples=5)
    assert rows == [2]
    few = MCDropout(where="layers", last=1)(MLP(hidden=(8, 8, 8))(TABLE))
    assert [name for note in few.notes for name in note.converted] == ["features.hidden3.linear", "features.dropout"]


def test_existing_dropout_keeps_kind_and_rate_in_modules_and_in_code() -> None:
    module = Foreign()
    made = MCDropout(num_samples=4)(Network.wrap(module, head="fc3", signature=TABLE))
    assert converted(made) == ["features", "drop", "alpha.0"]
    assert [(layer.p, layer.function) for layer in made.layers(DropoutAs)] == [
        (0.2, F.dropout),
        (0.3, F.alpha_dropout),
    ]
    x = torch.randn(5, 6)
    torch.manual_seed(6)
    expected = module.train()(x.repeat(4, 1)).reshape(4, 5, 3)
    made.eval()
    torch.manual_seed(6)
    assert_close(made(x, num_samples=4), expected)
    assert torch.equal(made(x)[0], module.eval()(x))
    torch.manual_seed(6)
    drawn = made.train()(x)[0]
    torch.manual_seed(6)
    assert_close(drawn, module.train()(x))


def test_a_rate_replaces_the_networks_own() -> None:
    made = MCDropout(p=0.25)(Network.wrap(Foreign(), head="fc3", signature=TABLE))
    assert {layer.p for layer in made.layers(DropoutAs)} == {0.25}
    assert made.layers(FunctionalDropout)[0].rate == 0.25


def test_modules_at_rate_zero_are_places_when_there_is_nothing_else() -> None:
    made = MCDropout()(Network.wrap(Foreign((0.0, 0.0, 0.0)), head="fc3", signature=TABLE))
    assert {layer.p for layer in made.layers(DropoutAs)} == {0.1}
    made = MCDropout()(Network.wrap(Foreign((0.0, 0.3, 0.0)), head="fc3", signature=TABLE))
    assert {layer.p for layer in made.layers(DropoutAs)} == {0.0, 0.3}


def test_channelwise_drops_channels_of_maps_and_of_features() -> None:
    made = MCDropout(channelwise=True)(LeNet()(IMAGES))
    assert [layer.channel_axis for layer in made.layers(Dropout)] == [1, -1, -1, -1]


def test_attention_dropout_is_reported() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, dropout=0.1, batch_first=True)
            self.drop, self.fc = nn.Dropout(0.1), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            z = x[:, None]
            return self.fc(self.drop(self.attention(z, z, z, need_weights=False)[0][:, 0]))

    made = MCDropout()(Network.wrap(Attending(), head="fc", signature=TABLE))
    assert [name for name, _ in made.notes[-1].skipped] == ["features.attention"]


def test_the_mean_of_probabilities_is_at_least_as_likely_as_the_draws() -> None:
    made = MCDropout(p=0.5)(MLP(hidden=(16, 16))(TABLE)).eval()
    x, y = torch.randn(40, 6), torch.randint(3, (40,))
    belief = CategoricalMixture(made(x, num_samples=20).detach())
    assert belief.log_prob(y).mean() >= belief.member_log_prob(y).mean()


def test_where_nothing_is_found() -> None:
    for where in ("existing", "blocks"):
        with pytest.raises(NoLayerReplaced, match="MCDropout found nothing"):
            MCDropout(where=where)(MLP()(TABLE))


def test_validation() -> None:
    for options in (
        {"p": 1.0},
        {"num_samples": 0},
        {"where": "everywhere"},
        {"last": 0, "where": "blocks"},
        {"last": 1},
    ):
        with pytest.raises(ValueError, match=f"MCDropout: {next(iter(options))} must be"):
            MCDropout(**options)
