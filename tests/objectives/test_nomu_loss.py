"""NOMU's loss against its formula, its gradients, and the two closed forms."""

import dataclasses
import math

import pytest
import torch
from contracts.styles import attempt, made
from nomu.small import beside, plane
from torch.testing import assert_close

from levelhead.artificial.box import Box
from levelhead.declared import KeepsStatistics
from levelhead.forward import Forward, extend, network_loss
from levelhead.network import Network
from levelhead.nomu.loss import in_sample, out_of_sample
from levelhead.objectives.nomu_loss import NomuLoss, raw_of
from levelhead.passes import seeded
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import Batch

TASK = plane()
POINTS = torch.linspace(-1, 1, 10).reshape(5, 2)


def fixed(rows: torch.Tensor):
    """Artificial inputs that are always the same."""
    return lambda num: POINTS[:num].to(rows)


SPEC = NomuLoss(pi_sqr=0.3, pi_exp=0.2, c_exp=7.0, num_points=5, points=fixed, stable=False)


def batch(size: int | None = None) -> Batch:
    return next(TASK.train.ordered(size or len(TASK.train)))


def value(spec: NomuLoss, network: Network, rows: Batch | None = None) -> torch.Tensor:
    objective = extend(network_loss, [spec.start(network, TASK, Run(0))])
    return objective(Forward(network, batch() if rows is None else rows))


def by_hand(spec: NomuLoss, network: Network) -> torch.Tensor:
    """The paper's sums over all rows, divided by their number."""
    rows, likelihood = batch(), TASK.likelihood
    target = (rows.y - likelihood.shift[0]) / likelihood.scale[0]
    f, r = network(rows.x)[0].T
    away = network(POINTS[: spec.num_points])[0, :, 1]
    total = (f - target[:, 0]).square().sum() + spec.pi_sqr * r.square().sum()
    if spec.num_points:
        total = total + spec.pi_exp * (-spec.c_exp * away).exp().mean()
    return total / len(rows.x)


def test_it_is_the_papers_loss_divided_by_the_number_of_rows():
    network = beside(TASK)
    assert_close(value(SPEC, network), by_hand(SPEC, network), rtol=1e-6, atol=1e-6)
    without = dataclasses.replace(SPEC, num_points=0)
    assert_close(value(without, network), by_hand(without, network), rtol=1e-6, atol=1e-6)


def test_without_its_weights_it_is_the_plain_loss_and_leaves_the_side_network_alone():
    network = beside(TASK)
    loss = value(dataclasses.replace(SPEC, pi_sqr=0.0, pi_exp=0.0), network)
    assert_close(loss, network_loss(Forward(network, batch())))
    loss.backward()
    side = [*network.features.side.parameters(), *network.head.raw.parameters()]
    assert not any(p.grad is not None and p.grad.any() for p in side)
    assert all(p.grad.any() for p in network.features.main.parameters())


@pytest.mark.parametrize("stable", [False, True])
def test_the_gradient_of_the_artificial_term_is_known(stable):
    raw = torch.tensor([[[0.01], [0.1], [0.4]]], dtype=torch.float64, requires_grad=True)
    spec = dataclasses.replace(SPEC, stable=stable)
    (gradient,) = torch.autograd.grad(spec.of_points(raw, 12), raw)
    expected = -spec.pi_exp * spec.c_exp / 3 * (-spec.c_exp * raw).exp() / 12
    assert_close(gradient, expected)


def test_targets_shape_no_uncertainty_and_artificial_inputs_no_prediction():
    network = beside(TASK, detach=True)
    side = [*network.features.side.parameters(), *network.head.raw.parameters()]
    main = [*network.features.main.parameters(), *network.head.main.parameters()]
    moved = batch()._replace(y=batch().y + 5)
    one = torch.autograd.grad(value(SPEC, network), side)
    other = torch.autograd.grad(value(SPEC, network, moved), side)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    here = torch.autograd.grad(value(SPEC, network), main)
    alone = torch.autograd.grad(network_loss(Forward(network, batch())), main)
    assert all(torch.equal(a, b) for a, b in zip(here, alone, strict=True))  # detached: exactly zero of [b] and [c]


def test_batches_of_a_random_partition_average_to_the_loss_of_all_rows():
    network = beside(TASK)
    whole = value(SPEC, network)
    rows = batch()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    parts = [value(SPEC, network, rows._replace(x=rows.x[p], y=rows.y[p], index=rows.index[p])) for p in order.split(3)]
    assert_close(torch.stack(parts).mean(), whole)
    literal = dataclasses.replace(SPEC, rescale=False)
    few = rows._replace(x=rows.x[:3], y=rows.y[:3], index=rows.index[:3])
    away = SPEC.of_points(raw_of(network, network(POINTS)), 12)
    assert_close(value(literal, network, few) - value(SPEC, network, few), 3 * away)  # 12 / 3 times as much
    assert_close(value(literal, network), whole)


def test_order_does_not_matter_and_a_seed_decides_the_points():
    network, rows = beside(TASK), batch()
    turned = rows._replace(x=rows.x.flip(0), y=rows.y.flip(0))
    assert_close(value(SPEC, network, turned), value(SPEC, network))
    spec = dataclasses.replace(SPEC, points=Box((-1.0,), (1.0,)))
    with seeded(4):
        first = value(spec, network)
    with seeded(4):
        again = value(spec, network)
    assert torch.equal(first, again)
    assert not torch.equal(value(spec, network), again)


def test_a_constant_uncertainty_ends_where_the_closed_form_says():
    """2 n pi_sqr rho = pi_exp c_exp exp(-c_exp rho)."""
    spec, n = NomuLoss(num_points=4), 8
    rho = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([rho], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = spec.of_sample(rho.expand(1, n, 1)) + spec.of_points(rho.expand(1, 4, 1), n)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = float(rho.detach())
    low, high = 0.0, 1.0  # the root by bisection
    for _ in range(60):
        middle = (low + high) / 2
        excess = 2 * n * 0.1 * middle - 0.01 * 30 * torch.exp(torch.tensor(-30 * middle, dtype=torch.float64))
        low, high = (middle, high) if excess < 0 else (low, middle)
    assert found == pytest.approx(low, abs=1e-4)
    assert found == pytest.approx(0.0465, abs=5e-4)


def test_artificial_inputs_move_no_statistic_and_see_the_running_ones():
    network = beside(TASK, batch_norm=True).train()
    held = {n: b.clone() for n, b in network.named_buffers()}
    (norm,) = [m for m in network.modules() if isinstance(m, KeepsStatistics)]
    forward = Forward(network, batch())
    forward.outputs  # noqa: B018  # the clean pass moves them, once
    after_clean = {n: b.clone() for n, b in network.named_buffers()}
    extend(network_loss, [SPEC.start(network, TASK, Run(0))])(forward)
    assert all(torch.equal(b, after_clean[n]) for n, b in network.named_buffers())
    assert any(not torch.equal(b, held[n]) for n, b in network.named_buffers())
    assert network.training
    assert norm.track_running_stats


def test_several_members_count_alike_and_several_targets_add_up():
    raw = torch.randn(3, 6, 2, dtype=torch.float64)
    expected = 0.3 * in_sample(raw, stable=False).sum(-1).mean()
    assert_close(SPEC.of_sample(raw), expected)
    expected = 0.2 / 12 * out_of_sample(raw, c_exp=7.0, stable=False).sum(-1).mean()
    assert_close(SPEC.of_points(raw, 12), expected)


def test_a_network_without_a_side_network_is_refused_with_advice():
    found, text = attempt(lambda: NomuLoss().start(made("mlp"), stripes(n=24, size=12), Run(0)))
    assert found is None
    assert "SideNetwork" in text


@pytest.mark.parametrize(
    "wrong",
    [{"pi_sqr": -1.0}, {"pi_exp": -1.0}, {"pi_exp": math.nan}, {"c_exp": 0.0}, {"num_points": -1},
     {"delta": 0.0}],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NomuLoss(**wrong)


def test_a_number_of_points_is_whole():
    spec = NomuLoss()
    object.__setattr__(spec, "num_points", 2.5)  # past the shape checks of the test run, which users do not have
    with pytest.raises(ValueError, match=r"num_points must be a whole number, got 2\.5"):
        spec.__post_init__()


def test_points_must_be_callable():
    with pytest.raises(TypeError, match="points"):
        NomuLoss(points=3)
