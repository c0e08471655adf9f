import pytest
import torch
from backbones.count import num_parameters
from torch import nn

from levelhead.backbones.mlp import ACTIVATIONS, MLP
from levelhead.likelihood import Gaussian, Signature

TABLE = Signature((3,), 2, Gaussian(), (1.0, 2.0, 3.0), (2.0, 4.0, 8.0))


def test_parameters_of_the_uci_network():
    # 13 features of Boston housing -> 50 -> mean and variance
    assert num_parameters(MLP(), (13,), 2) == 13 * 50 + 50 + 50 * 2 + 2


def test_parameters_of_the_mnist_network():
    spec = MLP(hidden=(200, 200, 200), batch_norm=True)
    assert num_parameters(spec, (1, 28, 28), 10) == 785 * 200 + 2 * 201 * 200 + 3 * 400 + 2010


def test_outputs_by_hand():
    network = MLP(hidden=(4,), activation="tanh")(TABLE)
    x = torch.randn(6, 3)
    hidden, head = network.features.hidden1.linear, network.head
    standard = (x - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([2.0, 4.0, 8.0])
    expected = torch.tanh(standard @ hidden.weight.T + hidden.bias) @ head.weight.T + head.bias
    torch.testing.assert_close(network(x)[0], expected)


def test_stages():
    assert list(dict(MLP(hidden=(5, 6))(TABLE).features.named_children())) == ["normalise", "hidden1", "hidden2"]
    image = Signature((1, 4, 4), 2)
    assert list(dict(MLP()(image).features.named_children())) == ["normalise", "flatten", "hidden1"]


def test_initialisation_is_uniform_over_one_by_root_fan_in():
    linear = MLP(hidden=(2000,))(TABLE).features.hidden1.linear
    bound = 3**-0.5
    assert linear.weight.abs().max() <= bound
    assert linear.bias.abs().max() <= bound
    torch.testing.assert_close(linear.weight.var(), torch.tensor(bound**2 / 3), rtol=0.05, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    act = MLP(activation=activation)(TABLE).features.hidden1.act
    assert isinstance(act, nn.Module)
    assert act(torch.tensor([-1.0, 2.0])).isfinite().all()


@pytest.mark.parametrize(
    "fields, says",
    [({"hidden": ()}, "hidden"), ({"hidden": (5, 0)}, "hidden"), ({"activation": "step"}, "activation .*'step'")],
)
def test_mistakes(fields, says):
    with pytest.raises(ValueError, match=f"MLP: {says}"):
        MLP(**fields)
