"""The side network: what is kept, what is read, where gradients go. Classes are refused."""

import copy

import pytest
import torch
from contracts.styles import attempt, made, regression
from nomu.small import beside, plane
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.likelihood import Gaussian
from levelhead.nomu.side import SideHead
from levelhead.passes import seeded
from levelhead.predictor import Point
from levelhead.storage import load, save
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.side_network import SideNetwork

TASK = plane()
X = TASK.test.x


def plain(task=TASK, **options):
    with seeded(0):
        return MLP((5,), **options)(task.signature)


def test_the_networks_own_outputs_stay_to_the_bit_and_its_argument_untouched():
    before = plain().eval()
    state, modes = copy.deepcopy(before.state_dict()), [m.training for m in before.modules()]
    after = SideNetwork(hidden=(6,))(before)
    assert torch.equal(after(X)[..., :1], before(X))
    assert after(X).shape == (1, 12, 2)
    assert after.num_outputs == 2
    assert after.width == 5 + 6
    assert [m.training for m in before.modules()] == modes
    assert all(torch.equal(t, state[key]) for key, t in before.state_dict().items())
    assert all(p.grad is None for p in before.parameters())
    assert not {id(p) for p in before.parameters()} & {id(p) for p in after.parameters()}
    assert [note.converted for note in after.notes] == [("features",), ("head",)]


def test_r_reads_the_features_of_both_networks():
    network = beside(TASK).eval()
    z = network.embed(X)[0]
    head = network.head
    assert isinstance(head, SideHead)
    main, side = network.features.main(X), network.features.side(X)
    assert torch.equal(z, torch.cat([main, side], 1))
    expected = z @ head.raw.weight.T + head.raw.bias
    assert_close(network(X)[0, :, 1:], expected)


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_of_r_reach_the_network_unless_it_is_detached(detach):
    network = beside(TASK, detach=detach)
    network(X)[..., 1].square().sum().backward()
    main = [*network.features.main.parameters(), *network.head.main.parameters()]
    side = [*network.features.side.parameters(), *network.head.raw.parameters()]
    assert all(p.grad is not None and p.grad.any() for p in side)
    assert any(p.grad is not None and p.grad.any() for p in main) is not detach


def test_with_noise_the_network_keeps_its_variance():
    task = regression()
    network = SideNetwork(hidden=(6,))(made("mlp", task=task)).eval()
    assert network(task.test.x).shape == (1, 24, 3)
    belief, own = network.likelihood.predictive(network(task.test.x)), made("mlp", task=task).eval()
    assert_close(belief.aleatoric(), own.likelihood.predictive(own(task.test.x)).total(), rtol=1e-4, atol=1e-4)
    assert (belief.epistemic() > 0).all()


def test_frozen_parts_stay_frozen_where_they_are_now():
    before = plain()
    before.freeze(before.features.hidden1)
    after = SideNetwork(hidden=(6,))(before).train()
    assert after.frozen == {"features.main.hidden1"}
    assert not after.features.main.hidden1.training
    assert after.features.side.training


def test_members_and_draws_have_uncertainties_of_their_own():
    task = regression()
    for surgery, rows in ((BatchEnsemble(num_members=3), 3), (MCDropout(p=0.3, num_samples=3), 3)):
        for order in ((surgery, SideNetwork(hidden=(6,))), (SideNetwork(hidden=(6,)), surgery)):
            network = made("mlp", *order, task=task).eval()
            outputs = network(task.test.x, num_samples=3 if network.stochastic else None)
            assert outputs.shape == (rows, 24, 3)
            assert not torch.allclose(outputs[0, :, 2], outputs[1, :, 2])


def test_a_saved_network_comes_back(tmp_path):
    predictor = Point(beside(TASK))
    again = load(save(predictor, tmp_path / "predictor"))
    assert torch.equal(again(X).variance, predictor(X).variance)
    assert torch.equal(again(X).epistemic(), predictor(X).epistemic())


def test_double_precision_is_kept_and_x_gets_a_gradient():
    network = SideNetwork(hidden=(6,))(plain().double())
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    torch.nn.init.constant_(network.head.raw.bias, 5.0)  # r > 0: below, the readout is flat
    x = X.double().requires_grad_(True)
    Point(network)(x).epistemic().sum().backward()
    assert x.grad is not None
    assert x.grad.any(1).all()


def test_classes_and_maps_are_refused_with_advice():
    for style in ("mlp", "resnet"):
        found, text = attempt(lambda style=style: made(style, SideNetwork()))
        assert found is None
        assert "Laplace" in text
    assert isinstance(regression().likelihood, Gaussian)
    found, text = attempt(lambda: SideNetwork()(SideNetwork(hidden=(6,))(plain())))
    assert found is None


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="hidden"):
        SideNetwork(hidden=())
    with pytest.raises(ValueError, match="l_min"):
        SideNetwork(l_min=3.0)
