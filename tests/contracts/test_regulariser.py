"""What every regulariser must do, with one member and with three, alone and around another.

A regulariser that refuses a plain network is tested after the one surgery that it needs.
"""

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from contracts.styles import STYLES, attempt, made, name, regression, segmentation, specs
from networks import Noisy, Scaled
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.declared import KeepsStatistics
from levelhead.forward import Forward, extend, network_loss
from levelhead.network import Network
from levelhead.passes import set_noise_state
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime
from levelhead.types import Batch

REGULARISERS = specs("objectives")
each_regulariser = pytest.mark.parametrize("regulariser", REGULARISERS, ids=name)
LABELLED = stripes(n=24, size=12)
PARTLY = dataclasses.replace(stripes(n=24, size=12), unlabelled=stripes(n=24, size=12, seed=9).train)
TASKS = {"labelled": LABELLED, "partly labelled": PARTLY}
SGD2 = SGD(epochs=2, batch_size=8, lr=0.01)


def membered(num_members: int, task: Task = LABELLED) -> Network:
    """A network with statistics, members, and a layer that draws."""
    torch.manual_seed(0)
    width = len(task.train.x[0].flatten())
    stages = [nn.Flatten(), nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Tanh()]
    stages += [Scaled(num_members, 8)] if num_members > 1 else []
    head = nn.Linear(8, task.likelihood.num_outputs)
    network = Network(nn.Sequential(*stages, Noisy()), head, task.signature, width=8)
    return network.declare(num_members=num_members, num_samples=2)


@cache
def company(regulariser: Any) -> tuple[Any, ...]:
    """The surgery without which a regulariser refuses every network; none where it needs none."""
    texts = []
    for surgery in ((), *((spec,) for spec in specs("surgeries"))):
        found, text = attempt(lambda surgery=surgery: objective_of([regulariser], made("mlp", *surgery)))
        if found is not None:
            return surgery
        texts.append(text)
    raise AssertionError(f"{regulariser} refuses everything: {texts}")


def accepted(network: Network, *regularisers: Any, task: Task = LABELLED) -> Network:
    """The network after the surgeries that these regularisers still need; another one where it does not stand them."""
    for regulariser in regularisers * 2:  # the first ones' needs again, where another network came
        if attempt(lambda given=regulariser, to=network: objective_of([given], to, task))[0] is None:
            for surgery in company(regulariser):
                after, _ = attempt(lambda surgery=surgery, to=network: surgery(to))
                network = surgery(membered(1, task)) if after is None else after
    return network


def batch(task: Task) -> Batch:
    return next(task.train.ordered(16))


def objective_of(regularisers: list[Any], network: Network, task: Task = LABELLED, seed: int = 0) -> Any:
    run = Run(seed, plain=lambda network, task, run: Recipe(backbone=lambda _: network)._plain(network, task, run))
    sealed = task.sealed()
    terms = [regulariser.start(network, sealed, run) for regulariser in regularisers]
    return extend(network_loss, terms), terms


def value(regularisers: list[Any], network: Network, task: Task = LABELLED) -> Tensor:
    objective, _ = objective_of(regularisers, network.train(), task)
    return objective(Forward(network, batch(task)))


@each_regulariser
@pytest.mark.parametrize("num_members", [1, 3])
@pytest.mark.parametrize("task", TASKS)
def test_the_objective_is_one_finite_number_and_its_gradient_reaches_every_parameter(regulariser, num_members, task):
    network = accepted(membered(num_members), regulariser)
    loss = value([regulariser], network, TASKS[task])
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    idle = [
        n for n, p in network.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ]
    assert not idle


@each_regulariser
@pytest.mark.parametrize("style", STYLES)
def test_it_trains_every_style_of_network(regulariser, style):
    network = made(style, *company(regulariser))
    value([regulariser], network).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@each_regulariser
def test_equal_noise_gives_equal_objectives(regulariser):
    def drawn() -> Tensor:
        torch.manual_seed(5)
        return value([regulariser], network)

    network = accepted(membered(3), regulariser)
    state = {n: t.clone() for n, t in network.state_dict().items()}
    first = drawn()
    network.load_state_dict(state)
    assert torch.equal(drawn(), first)


@each_regulariser
def test_two_fits_from_one_spec_agree(regulariser):
    recipe = Recipe(
        backbone=STYLES["mlp-norm"], surgery=company(regulariser), regularisers=(regulariser,), sampler=SGD2
    )
    first, again = (recipe.fit(PARTLY, 3).state_dict() for _ in range(2))
    assert all(torch.equal(t, again[key]) for key, t in first.items())


@pytest.mark.partners(6, "regulariser", "other")
@each_regulariser
@pytest.mark.parametrize("other", REGULARISERS, ids=name)
def test_it_composes_outside_another(regulariser, other):
    network = accepted(membered(3), regulariser, other)
    loss = value([regulariser, other], network)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@each_regulariser
def test_what_it_is_given_is_part_of_it(regulariser):
    """Middleware: the inner objective is called, and its gradient counts."""
    network = accepted(membered(1), regulariser).train()
    (term,) = objective_of([regulariser], network)[1]
    scale = torch.ones((), requires_grad=True)
    calls = []

    def inner(forward: Forward) -> Tensor:
        calls.append(forward)
        return scale * network_loss(forward)

    term(inner, Forward(network, batch(LABELLED))).backward()
    assert calls
    assert scale.grad is not None
    assert scale.grad != 0


@each_regulariser
def test_the_batch_and_the_mode_are_left_alone(regulariser):
    network = accepted(membered(3), regulariser).train()
    held = batch(LABELLED)
    x, y = held.x.clone(), held.y.clone()
    objective, terms = objective_of([regulariser], network)
    objective(Forward(network, held)).backward()
    terms[0].end_epoch(network)
    assert torch.equal(held.x, x)
    assert torch.equal(held.y, y)
    assert not held.x.requires_grad
    assert all(module.training for module in network.modules())
    assert all(m.track_running_stats for m in network.modules() if isinstance(m, KeepsStatistics))
    assert all(p.requires_grad for p in network.parameters())


@each_regulariser
def test_it_may_be_called_several_times_a_step(regulariser):
    network = accepted(membered(1), regulariser).train()
    (term,) = objective_of([regulariser], network)[1]
    forward = Forward(network, batch(LABELLED))
    values = [term(network_loss, forward.on(y=forward.batch.y.roll(k))) for k in range(3)]
    assert all(v.isfinite() for v in values)


@each_regulariser
@pytest.mark.parametrize("task", TASKS)
def test_its_state_goes_on_where_it_stopped(regulariser, task):
    def term_of(network: Network) -> Any:
        return objective_of([regulariser], network, TASKS[task])[1][0]

    network = accepted(membered(1), regulariser).train()
    one, other = term_of(network), term_of(network)
    for _ in range(2):
        one(network_loss, Forward(network, batch(LABELLED)))
        one.end_epoch(network)
    other.load_state_dict(one.state_dict())
    stream = {"cpu": torch.get_rng_state()}
    state = {n: t.clone() for n, t in network.state_dict().items()}
    expected = one(network_loss, Forward(network, batch(LABELLED)))
    set_noise_state(stream, network.device)
    network.load_state_dict(state)
    assert_close(other(network_loss, Forward(network, batch(LABELLED))), expected, rtol=0, atol=0)


@each_regulariser
def test_soft_labels_are_read_or_refused_with_advice(regulariser):
    network = accepted(membered(3), regulariser).train()
    soft = nn.functional.one_hot(batch(LABELLED).y, 3).float()
    objective, _ = objective_of([regulariser], network)
    loss, _ = attempt(lambda: objective(Forward(network, batch(LABELLED)._replace(y=soft))))
    assert loss is None or loss.isfinite()


@each_regulariser
@pytest.mark.parametrize("task", [regression(), segmentation()], ids=lambda task: task.name)
def test_other_targets_are_understood_or_refused_with_advice(regulariser, task):
    def loss() -> Tensor:
        if task.name == "line":
            return value([regulariser], accepted(membered(3, task), regulariser, task=task), task)
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        pixels = Network(features, nn.Linear(6, 2), task.signature, channel=1)
        return value([regulariser], accepted(pixels, regulariser, task=task), task)

    found, _ = attempt(loss)
    assert found is None or found.isfinite()


@each_regulariser
def test_a_fit_takes_any_precision(regulariser):
    recipe = Recipe(backbone=STYLES["mlp"], surgery=company(regulariser), regularisers=(regulariser,), sampler=SGD2)
    predictor = recipe.fit(LABELLED, 0, Runtime(dtype=torch.float64))
    assert {p.dtype for p in predictor.parameters()} == {torch.float64}
    assert predictor(LABELLED.test.x.double() / 255).probs.isfinite().all()
