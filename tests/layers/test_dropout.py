"""Dropout layers against the functions of torch: when they draw, what they drop, which rate counts."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.declared import Stochastic
from levelhead.layers.dropout import Dropout, DropoutAs, FunctionalDropout, function_of

X = torch.rand(64, 32, 5, 5) + 1
MODULES = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]


def sampling(layer: Stochastic) -> Stochastic:
    layer.eval()
    layer.sampling = True
    return layer


@pytest.mark.parametrize(
    "layer", [Dropout(0.3), DropoutAs(nn.Dropout(), 0.3), FunctionalDropout(nn.Dropout(0.3))], ids=repr
)
def test_draws_in_training_and_when_sampling_but_not_at_rest_or_muted(layer: Stochastic) -> None:
    layer = copy.deepcopy(layer)
    torch.manual_seed(3)
    expected = F.dropout(X, 0.3)
    for drawing in (layer.train(), sampling(layer)):
        torch.manual_seed(3)
        assert_close(drawing(X), expected)
    layer.muted = True
    assert torch.equal(layer(X), X)
    assert torch.equal(layer.train()(X), X)
    layer.muted, layer.sampling = False, False
    assert torch.equal(layer.eval()(X), X)


def test_rate_and_scale() -> None:
    out = Dropout(0.25)(X)
    kept = out != 0
    assert kept.float().mean() == pytest.approx(0.75, abs=0.01)
    assert_close(out[kept], X[kept] / 0.75)
    assert torch.equal(Dropout(0.0)(X), X)


@pytest.mark.parametrize("axis", [1, -1])
def test_channelwise_drops_an_example_and_channel_at_once(axis: int) -> None:
    out = Dropout(0.4, channel_axis=axis)(X).movedim(axis, 1).flatten(2)
    dropped = (out == 0).all(-1)
    assert torch.equal(dropped, (out == 0).any(-1))
    assert dropped.float().mean() == pytest.approx(0.4, abs=0.05)
    assert len(set(dropped.float().mean(1).tolist())) > 1  # every example has its own mask


@pytest.mark.parametrize("kind", MODULES)
def test_every_dropout_module_keeps_its_function(kind: type[nn.Module]) -> None:
    x = X[0] if kind is nn.Dropout1d else X[:, :, None] if kind is nn.Dropout3d else X
    torch.manual_seed(5)
    expected = kind(0.35)(x)
    torch.manual_seed(5)
    assert torch.equal(DropoutAs(kind(0.35), 0.35)(x), expected)


class Coded(nn.Module):
    """Dropout in code, one of them without asking for the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, *, inplace: bool = False) -> Tensor:
        x = F.dropout(x * self.scale, p=0.2, training=self.training, inplace=inplace)
        return F.dropout2d(F.dropout(x, 0.0), 0.1)


def test_functions_in_code_draw_when_the_layer_does() -> None:
    layer = FunctionalDropout(Coded())
    torch.manual_seed(7)
    expected = F.dropout2d(F.dropout(X, 0.2), 0.1)
    torch.manual_seed(7)
    assert_close(sampling(layer)(X), expected)
    layer.sampling = False
    assert torch.equal(layer(X), X)  # also the call that did not ask for the mode
    assert torch.equal(layer(X, inplace=True), X)


def test_another_rate_replaces_all_but_zero() -> None:
    layer = sampling(FunctionalDropout(Coded(), 0.6))
    torch.manual_seed(9)
    expected = F.dropout2d(F.dropout(X, 0.6), 0.6)
    torch.manual_seed(9)
    assert_close(layer(X), expected)


def test_reads_like_the_module_it_holds() -> None:
    layer = FunctionalDropout(Coded())
    assert layer.scale is layer.module.scale
    with pytest.raises(AttributeError, match="colour"):
        _ = layer.colour


def test_refuses() -> None:
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"p must be in \[0, 1\), got {p}"):
            Dropout(p)
    with pytest.raises(TypeError, match="got ReLU"):
        function_of(nn.ReLU())
