"""Mean-field VI as a surgery: where it acts, what it draws, and what stays."""

import pytest
import torch
from contracts.styles import Attention
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.gaussian_weights import GaussianWeights
from levelhead.layers.per_member import PerMember
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.parameter_groups import groups
from levelhead.passes import seeded
from levelhead.predictor import Point
from levelhead.recipe import DeepEnsemble
from levelhead.storage import load, save
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.mean_field import ANSWERS, MeanField
from levelhead.tasks.stripes import stripes
from levelhead.text import parse
from levelhead.types import NoLayerReplaced

IMAGES = Signature((1, 16, 16), 3, Categorical(3))
TABLE = Signature((4,), 3, Categorical(3))


def test_every_linear_layer_and_convolution_gets_a_posterior():
    network = MeanField()(LeNet()(IMAGES))
    assert len(network.layers(GaussianWeights)) == 5
    assert network.num_samples == 10
    assert len(MeanField(within="head")(LeNet()(IMAGES)).layers(GaussianWeights)) == 1
    assert len(MeanField(within="features")(LeNet()(IMAGES)).layers(GaussianWeights)) == 4
    norms = [m for m in MeanField()(ResNet(depth=8, width=4)(IMAGES)).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms


def test_what_turns_hyper_parameters_into_weights_stays_a_point():
    network = MeanField()(HyperBatch()(LeNet()(IMAGES)))
    layers = network.layers(ConditionalWeights)
    assert layers
    assert not any(isinstance(m, GaussianWeights) for layer in layers for m in layer.embedding.modules())
    assert isinstance(network.features.hidden1.linear.response, GaussianWeights)
    assert ("features.hidden1.linear.embedding", ANSWERS) in network.notes[-1].skipped


def test_last_layer_draws_share_the_features():
    """One pass through the features, whatever the number of draws."""
    network = MeanField(within="head", num_samples=6)(LeNet()(IMAGES)).eval()
    calls = []
    network.features[1].register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    x = torch.rand(5, 1, 16, 16)
    assert network(x, num_samples=6).shape == (6, 5, 3)
    assert calls == [5]


def test_a_sample_is_one_function_for_all_rows():
    """The draws of a predictor do not depend on the rows' company, in any layer."""
    with seeded(0):
        network = MeanField(num_samples=3, init_scale=0.5)(ResNet(depth=8, width=4)(IMAGES))
    point = Point(network)
    x = torch.rand(6, 1, 16, 16)
    whole = point(x).logits
    assert not torch.allclose(whole[0], whole[1])
    assert_close(point(x[:2]).logits, whole[:, :2], rtol=1e-4, atol=1e-5)


def test_members_have_draws_of_their_own():
    network = MLP(hidden=(8,))(TABLE)
    network = MeanField(init_scale=0.5)(network)
    network.num_members = 2
    rows = network.eval()(torch.rand(5, 4), num_samples=3)
    assert rows.shape == (6, 5, 3)
    assert all(not torch.allclose(rows[j], rows[i]) for i in range(6) for j in range(i))


def test_a_layer_that_sees_one_members_rows_draws_once_for_each_sample():
    features = nn.Sequential(PerMember(nn.Linear(4, 4), 3), nn.Tanh())
    plain = Network(features, nn.Linear(4, 3), TABLE, width=4).declare(num_members=3)
    network = MeanField(init_scale=0.5)(plain).eval()
    x = torch.rand(5, 4)
    torch.manual_seed(0)
    whole = network(x, num_samples=2)
    torch.manual_seed(0)
    assert_close(network(x[:3], num_samples=2), whole[:, :3])
    assert not torch.allclose(whole[0], whole[1])


def test_means_and_widths_have_no_weight_decay():
    network = MeanField()(MLP(hidden=(8,))(TABLE))
    decays = {g["weight_decay"]: len(g["params"]) for g in groups(network, lr=0.1, weight_decay=0.5)}
    assert decays == {0.0: 8}


def test_layers_that_use_their_weight_otherwise_are_left_with_a_reason():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x).relu()

    features = nn.Sequential(Own(4, 4), nn.Linear(4, 4))
    network = MeanField()(Network(features, nn.Linear(4, 3), TABLE, width=4))
    (note,) = network.notes
    assert note.converted == ("features.1", "head")
    assert "Own" in dict(note.skipped)["features.0"]
    idle = nn.Sequential(nn.MultiheadAttention(4, 1))
    with pytest.raises(NoLayerReplaced, match="Own"):
        MeanField(within="features")(Network(nn.Sequential(Own(4, 4)), nn.Linear(4, 3), TABLE, width=4))
    assert idle[0].out_proj.weight.shape == (4, 4)


def test_tokens_of_a_row_share_its_weight():
    features = nn.Sequential(nn.Unflatten(1, (2, 2)), Attention(2), nn.Flatten())
    network = MeanField(init_scale=0.5)(Network(features, nn.Linear(4, 3), TABLE, width=4))
    assert len(network.layers(GaussianWeights)) == 3
    assert network.eval()(torch.rand(5, 4), num_samples=2).shape == (2, 5, 3)


def test_it_is_saved_and_loaded(tmp_path):
    task = stripes(n=24, size=12)
    line = "lenet + mean_field(num_samples=4) + elbo + adamw(epochs=1, batch_size=8, weight_decay=0.0)"
    ensemble = DeepEnsemble(member=parse(line), size=2)
    predictor = ensemble.fit(task, 0, rehearsed=True)
    save(predictor, tmp_path / "p")
    x = task.test.x / 255
    again = load(tmp_path / "p")
    assert predictor(x).num_members == 8
    assert torch.equal(again(x).log_probs, predictor(x).log_probs)


def test_wrong_settings_name_the_field():
    for field, value in (("estimator", "exact"), ("init_scale", 0.0), ("num_samples", 0), ("within", "tail")):
        with pytest.raises(ValueError, match=field):
            MeanField(**{field: value})
