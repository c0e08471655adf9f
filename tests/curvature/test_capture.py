"""Gradients of single examples from inputs and cotangents, against Jacobians by automatic differentiation."""

import pytest
import torch
from curvature.cases import CASES, F64, made
from torch import Tensor, nn

from levelhead.curvature.capture import check_uses, passing
from levelhead.curvature.selection import Selection
from levelhead.types import CannotCompose


def jacobian(network, x: Tensor, selection: Selection) -> Tensor:
    """Ours: (row, output, parameter)."""
    with passing(network, selection.watches, differentiable=False) as run:
        gone = run(x)
        outputs = gone.outputs.shape[1]
        columns = torch.eye(outputs, dtype=F64)[:, None].expand(-1, len(x), -1)
        return selection.jacobian(gone.back(columns)).transpose(0, 1)


def everything(network) -> Selection:
    return Selection.of_names(network, [name for name, _ in network.named_parameters()])


@pytest.mark.parametrize("case", CASES)
def test_jacobians_are_those_of_plain_differentiation(case):
    network, x = CASES[case]()
    selection = everything(network)
    torch.testing.assert_close(jacobian(network, x, selection), CASES[case]().jacobian(), rtol=1e-9, atol=1e-12)
    check_uses(network, selection.watches, x)


@pytest.mark.parametrize("case", ["grouped", "batch norm", "embedding", "tied"])
def test_chosen_entries_are_those_of_the_jacobian(case):
    case = CASES[case]()
    size = sum(p.numel() for p in case.network.parameters())
    for few in (3, size // 2):
        indices = torch.randperm(size)[:few].sort().values
        selection = Selection.of_indices(case.network, indices)
        found = jacobian(case.network, case.x, selection)
        torch.testing.assert_close(found, case.jacobian()[..., indices], rtol=1e-9, atol=1e-12)
        theta = torch.cat([p.detach().flatten() for p in case.network.parameters()])
        assert torch.equal(selection.theta(), theta[indices])


def test_the_network_is_left_as_it_was():
    network, x = CASES["batch norm"]()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    network.features[0].weight.requires_grad_(False)
    stream = torch.get_rng_state()
    jacobian(network, x, everything(network))
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert network.training
    assert torch.equal(torch.get_rng_state(), stream)
    assert not network.features[0].weight.requires_grad
    assert network.head.weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_only_layers_that_were_chosen_are_watched():
    network, x = CASES["batch norm"]()
    selection = Selection.of_names(network, ["head.weight"])
    with passing(network, selection.watches, differentiable=False) as run:
        assert len(run(x).calls) == 1


class Loose(nn.Module):
    """A weight that belongs to no layer that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Around(nn.Module):
    """A layer whose weight is used outside of it too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.layer.weight


class Mixing(nn.Module):
    """Rows of a batch that see one another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return z - z.mean(0)


def test_unknown_layers_are_refused_by_name():
    network, _ = made(Loose(), 4, (4,))
    with pytest.raises(CannotCompose, match=r"features\.scale.*subset"):
        everything(network)


@pytest.mark.parametrize("features", [Around, Mixing])
def test_weights_that_act_otherwise_are_found_out(features):
    network, x = made(features(), 4, (4,))
    with pytest.raises(CannotCompose, match=r"features\.layer"):
        check_uses(network, everything(network).watches, x)


def test_batch_norm_without_statistics_is_refused():
    network, _ = made(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)), 3, (4,))
    with pytest.raises(CannotCompose, match=r"features\.1"):
        everything(network)


@pytest.mark.parametrize("wrong", [[], [3, 3], [4, 2], [-1, 2], [0, 10**6]], ids=str)
def test_places_must_be_sorted_and_there(wrong):
    network, _ = CASES["linear"]()
    with pytest.raises(ValueError, match="subset"):
        Selection.of_indices(network, torch.tensor(wrong, dtype=torch.int64))
