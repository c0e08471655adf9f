"""Selection rules against closed forms, brute force and plain autograd."""

import itertools
import json
import math

import pytest
import torch
from posthoc.small import blobs, line, mlp, trained
from torch import nn

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.catalogue import parts
from levelhead.curvature.chosen import report
from levelhead.curvature.places import alive, candidates, largest, places
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.samplers.sgd import SGD
from levelhead.subnetworks._rule import Rule
from levelhead.subnetworks.contribution import Contribution
from levelhead.subnetworks.laplace_variance import LaplaceVariance
from levelhead.subnetworks.last_layer import LastLayer
from levelhead.subnetworks.magnitude import Magnitude
from levelhead.subnetworks.random import Random
from levelhead.subnetworks.swag_variance import SWAGVariance
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose
from levelhead.values import from_json, to_json

TASK = blobs()
RULES = (SWAGVariance, Contribution, LaplaceVariance, Magnitude, Random)
each_rule = pytest.mark.parametrize("rule", RULES)
SHORT = SGD(epochs=3, lr=0.01, batch_size=20, schedule="constant")


def network(*, dead: bool = False) -> nn.Module:
    made = mlp(TASK, width=8).double()
    if dead:
        made.features[1] = nn.ReLU()
        with torch.no_grad():
            made.features[0].bias[:2] = -100.0
    return made


def short(rule: type, **fields) -> Rule:
    return rule(path=SHORT, **fields) if rule is SWAGVariance else rule(**fields)


def jacobian(net, x) -> torch.Tensor:
    rows = []
    for outputs in net(x)[0]:
        for f in outputs:
            found = torch.autograd.grad(f, list(net.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows).reshape(len(x), -1, len(rows[0]))


def test_places_are_those_of_the_flat_vector() -> None:
    net = network()
    flat = nn.utils.parameters_to_vector(net.parameters())
    for place, (name, parameter) in zip(places(net), net.named_parameters(), strict=True):
        assert place.name == name
        torch.testing.assert_close(flat[place.start : place.stop], parameter.flatten())


def test_candidates_are_weights_that_train_and_no_norms() -> None:
    net = ResNet(depth=8, width=4)(stripes(n=12).signature)
    net.head.requires_grad_(False)
    kept = candidates(net, ("*weight*",))
    mask = torch.zeros(places(net)[-1].stop, dtype=torch.bool)
    mask[kept] = True
    for place, (name, parameter) in zip(places(net), net.named_parameters(), strict=True):
        convolution = parameter.ndim == 4
        assert bool(mask[place.start : place.stop].all()) is convolution, name
    assert len(candidates(net, ("*",), norms=True)) == sum(p.numel() for p in net.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="matches no trainable parameter"):
        candidates(net, ("head.*",))


@each_rule
def test_a_choice_is_sorted_unique_and_of_the_right_size(rule: type) -> None:
    net = network()
    size = len(candidates(net, ("*weight*",)))
    for k, num in ((5, 5), (0.25, round(0.25 * size)), (1.0, size)):
        with seeded(0):
            chosen = short(rule, k=k)(net, TASK)
        assert len(chosen) == num
        assert (chosen.diff() > 0).all()
        assert torch.isin(chosen, candidates(net, ("*weight*",))).all()


@each_rule
def test_a_choice_depends_on_the_seed_alone_and_touches_nothing(rule: type) -> None:
    net = network()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    mode = net.training
    choices = []
    for seed in (3, 3):
        with seeded(seed), torch.no_grad():
            choices.append(short(rule, k=9)(net, TASK))
    assert torch.equal(*choices)
    assert net.training is mode
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@each_rule
def test_kernels_are_laid_out_as_places_are(rule: type) -> None:
    """Convolutions keep their channels innermost; flat places do not care."""
    task = stripes(n=12, size=12)
    net = LeNet()(task.signature)
    chosen = short(rule, k=7, include=("features.stage1.*weight",), exclude_dead=False)(net, task)
    assert len(chosen) == 7
    assert chosen.max() < places(net)[0].stop
    if rule is Magnitude:
        kernel = net.features.stage1.conv.weight.detach()
        assert set(chosen.tolist()) == set(kernel.abs().reshape(-1).topk(7).indices.tolist())


@each_rule
def test_impossible_sizes_are_refused(rule: type) -> None:
    for k in (0, -3, 0.0, 1.5, True):
        with pytest.raises(ValueError, match="k must be"):
            rule(k=k)
    with pytest.raises(ValueError, match="only 40 parameters match"):
        short(rule, k=41)(network(), TASK)


@each_rule
def test_a_pattern_that_is_no_tuple_is_refused(rule: type) -> None:
    spec = rule()
    object.__setattr__(spec, "include", "x")  # past the shape checks of the test run, which users do not have
    with pytest.raises(ValueError, match=r"include must be a tuple.*'x'"):
        spec.__post_init__()


@pytest.mark.parametrize("rule", parts("subnetworks"))
def test_rules_are_values_with_text_and_json(rule: type) -> None:
    assert from_json(json.loads(json.dumps(to_json(rule())))) == rule()


def test_dead_parameters_are_those_without_a_jacobian() -> None:
    net = network(dead=True)
    exact = jacobian(net, TASK.train.x.double()).abs().sum((0, 1)) > 0
    assert torch.equal(alive(net, TASK.train), exact)
    assert 0 < int((~exact).sum()) < len(exact)
    for rule in RULES[:2]:
        chosen = short(rule, k=1.0)(net, TASK)
        assert exact[chosen].all()
        assert len(chosen) == int(exact[candidates(net, ("*weight*",))].sum())


def test_nothing_alive_says_so() -> None:
    net = network()
    with torch.no_grad():
        net.head.weight.zero_()
    with pytest.raises(CannotCompose, match="Train longer"):
        Magnitude(include=("features.*",))(net, TASK)


def test_laplace_and_contribution_scores_are_those_of_dense_jacobians() -> None:
    net = network(dead=True)
    x = TASK.train.x.double()
    J, p = jacobian(net, x), net(x)[0].softmax(-1)
    curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    h = torch.einsum("n c d, n c e, n e d -> d", J, curvature, J)
    r = J.square().sum((0, 1))
    torch.testing.assert_close(LaplaceVariance(prior_precision=0.3).scores(net, TASK), 1 / (h + 0.3))
    torch.testing.assert_close(Contribution(prior_precision=0.3).scores(net, TASK), r / (h + 0.3))


def test_scores_of_curvature_know_the_noise_of_regression() -> None:
    task = line()
    net = trained(mlp(task, width=4), task, steps=30).network.double()
    x = task.train.x.double()
    J, (_, variance) = jacobian(net, x), net.likelihood.moments(net(x)[0])
    slope = net(x)[0][:, 1:].sigmoid()
    weights = torch.cat([1 / variance, slope.square() / (2 * variance.square())], -1)
    h = torch.einsum("n c d, n c -> d", J.square(), weights)
    torch.testing.assert_close(1 / LaplaceVariance().scores(net, task) - 1, h, rtol=1e-6, atol=1e-9)


def test_what_moves_the_noise_alone_predicts_nothing() -> None:
    task = line()
    net = trained(mlp(task, width=4), task, steps=30).network.double()
    J = jacobian(net, task.train.x.double())
    assert torch.equal(alive(net, task.train), J[:, 0].abs().sum(0) > 0)
    noise = torch.zeros(J.shape[-1], dtype=torch.bool)
    (place,) = (place for place in places(net) if place.name == "head.weight")
    noise[place.start + 4 : place.stop] = True
    assert not alive(net, task.train)[noise].any()
    h = 1 / LaplaceVariance().scores(net, task)
    torch.testing.assert_close(Contribution().scores(net, task), J[:, 0].square().sum(0) / h)


def test_laplace_scores_do_not_depend_on_the_order_of_rows() -> None:
    net = network()
    order = torch.randperm(len(TASK.train), generator=torch.Generator().manual_seed(1))
    turned = blobs()
    vars(turned)["train"] = TASK.train.take(order)
    assert torch.equal(Contribution(k=11)(net, TASK), Contribution(k=11)(net, turned))


def test_the_largest_variances_minimise_the_wasserstein_distance_of_independent_parameters() -> None:
    variances = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (1, 4, 8):
        chosen = largest(variances, torch.arange(9), k)

        def left_out(kept: tuple[int, ...]) -> float:
            mask = torch.ones(9, dtype=torch.bool)
            mask[list(kept)] = False
            # W_2^2 = Tr(A + B - 2 (B^1/2 A B^1/2)^1/2) with B the part of A on the kept coordinates
            full, part = torch.diag(variances), torch.diag(variances * ~mask)
            root = part.sqrt()
            return float(torch.trace(full + part - 2 * (root @ full @ root).sqrt()))

        best = min(itertools.combinations(range(9), k), key=left_out)
        assert set(chosen.tolist()) == set(best)
        assert left_out(tuple(chosen.tolist())) == pytest.approx(float(variances.sum() - variances[chosen].sum()))


def test_ties_go_to_the_first_places() -> None:
    assert largest(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]), torch.tensor([2, 3, 5, 7, 11]), 3).tolist() == [2, 3, 7]


def test_the_places_move_with_the_parameters() -> None:
    """The same layers in another order of parameters: the same weights are chosen."""
    net, swapped = network(), network()
    swapped._modules = {name: swapped._modules[name] for name in reversed(list(swapped._modules))}
    assert places(net)[0].name != places(swapped)[0].name
    one, other = Magnitude(k=12)(net, TASK), Magnitude(k=12)(swapped, TASK)
    assert not torch.equal(one, other)
    flat, turned = (nn.utils.parameters_to_vector(made.parameters()) for made in (net, swapped))
    torch.testing.assert_close(flat[one].sort().values, turned[other].sort().values)
    weights = flat[candidates(net, ("*weight*",))]
    torch.testing.assert_close(flat[one].abs().min(), weights.abs().sort().values[-12])


def test_random_draws_every_place_equally_often_and_never_twice() -> None:
    net = network()
    counts = torch.zeros(places(net)[-1].stop)
    with seeded(0):
        for _ in range(400):
            chosen = Random(k=20, exclude_dead=False)(net, TASK)
            assert len(chosen.unique()) == 20
            counts[chosen] += 1
    kept = counts[candidates(net, ("*weight*",))]
    assert kept.sum() == 400 * 20
    assert (kept - 200).abs().max() < 5 * 10  # 400 draws of a half: a standard deviation of 10


class MeanOnly(nn.Linear):
    """A mean by weights, and a constant noise."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        mean = super().forward(z)
        return torch.cat([mean, torch.zeros_like(mean)], -1)


def test_swag_finds_the_stationary_variances_of_a_quadratic() -> None:
    """Each row moves one coordinate, whose targets' noise is its own: theta_d is an AR(1) of known variance."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(180) % 3
    y = torch.tensor([0.2, 1.0, 0.5])[place] * torch.randn(180, generator=generator)
    noise = torch.stack([y[place == d].square().mean() for d in range(3)])
    task = line()
    vars(task).update(train=Split("train", torch.eye(3)[place], y.unsqueeze(1)), likelihood=Gaussian())
    vars(task).pop("signature", None)
    net = Network(nn.Identity(), MeanOnly(3, 1, bias=False), task.signature, width=3)
    nn.init.zeros_(net.head.weight)
    lr, size = 0.6, 6
    path = SGD(epochs=60, lr=lr, momentum=0.0, weight_decay=0.0, batch_size=size, schedule="constant")
    with seeded(1):
        scores = SWAGVariance(path=path).scores(net, task)
    s = math.log(2)  # softplus(0)
    rate = lr / (3 * s)  # how fast a coordinate is drawn to its mean
    gradient = noise / (3 * s * s * size)  # variance of the mini-batch gradient, to first order in rate
    expected = lr**2 * gradient / (1 - (1 - rate) ** 2)
    assert (scores / expected).log().abs().max() < math.log(2)
    assert scores.argsort().tolist() == [0, 2, 1]


def test_last_layer_is_the_head() -> None:
    net = network()
    flat = nn.utils.parameters_to_vector(net.parameters())
    head = torch.cat([net.head.weight.flatten(), net.head.bias])
    torch.testing.assert_close(flat[LastLayer()(net, TASK)], head)


def test_the_literal_rule_warns_where_it_explains_nothing() -> None:
    net = network(dead=True)
    with pytest.warns(UserWarning, match="explain 0.0e"):
        LaplaceVariance(k=4)(net, TASK)


def test_members_and_pixels_are_refused_with_another_rule() -> None:
    net = BatchEnsemble(num_members=2)(MLP(hidden=(4,))(TASK.signature))
    with pytest.raises(CannotCompose, match="SWAGVariance"):
        Contribution()(net, TASK)


def test_a_report_counts_and_explains() -> None:
    net = network(dead=True)
    chosen = Contribution(k=10)(net, TASK)
    found = report(chosen, net, TASK.train)
    assert (found.num, found.total) == (10, places(net)[-1].stop)
    assert sum(num for num, _ in found.by_tensor.values()) == 10
    scores = Contribution().scores(net, TASK)
    assert found.explained == pytest.approx(float(scores[chosen].sum() / scores.sum()))
    assert found.dead == pytest.approx(float((scores == 0).double().mean()))
    assert found.chosen_dead == 0
    assert "10 of" in str(found)
    everything = torch.arange(found.total)
    assert report(everything, net, TASK.train).explained == pytest.approx(1.0)
