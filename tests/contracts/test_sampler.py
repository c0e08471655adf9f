"""What every sampler must do: the same seed the same predictor, resume to the bit, and learning.

A sampler that refuses a plain network is tested after the one surgery that it needs, or on one without BatchNorm.
"""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.styles import STYLES, TASK, X, attempt, made, name, refusal, specs
from torch import Tensor

from levelhead.forward import Forward, Objective, Stateless, network_loss
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.recipe import Recipe
from levelhead.tasks.stripes import stripes
from levelhead.training import Run, Runtime, train
from levelhead.types import Scalar

SAMPLERS = specs("samplers")
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
WRAPPERS = [spec for spec in SAMPLERS if "inner" in {field.name for field in dataclasses.fields(spec)}]
LEARNABLE = stripes(n=96, noise=0.05)


def small(sampler: Any, epochs: int, batch_size: int = 8) -> Any:
    """The sampler with other sizes; wrappers hand them to what they hold."""
    names = {field.name for field in dataclasses.fields(sampler)}
    sizes = {"epochs": epochs, "batch_size": batch_size}
    changes: dict[str, Any] = {key: value for key, value in sizes.items() if key in names}
    if "batch_size" in changes and sampler.batch_size is None:
        del changes["batch_size"]
    if "inner" in names:
        changes["inner"] = small(sampler.inner, epochs, batch_size)
    return dataclasses.replace(sampler, **changes)


@cache
def company(sampler: Any, wanted: str) -> tuple[str, tuple[Any, ...]]:
    """The style of network, and the surgery, without which a sampler refuses: the one wanted and none, if it can be.

    Some want no BatchNorm: hence the other style. Where nothing helps, what was wanted.
    """
    for surgery in ((), *((spec,) for spec in specs("surgeries"))):
        for style in dict.fromkeys((wanted, "group")):
            if surgery and refusal(*surgery, style):
                continue
            network = made(style, *surgery)
            found, _ = attempt(lambda network=network: sampler.init(network, TASK.sealed(), Run(0)))
            if found is not None:
                return style, surgery
    return wanted, ()


def recipe(sampler: Any, *regularisers: Any, style: str = "mlp-norm") -> Recipe:
    style, surgery = company(sampler, style)
    return Recipe(backbone=STYLES[style], surgery=surgery, regularisers=regularisers, sampler=sampler)


def state(predictor: Predictor) -> dict[str, Tensor]:
    return predictor.state_dict()


@each_sampler
def test_the_seed_decides_the_predictor(sampler):
    fit = recipe(small(sampler, 2)).fit
    one, same, other = (fit(TASK, seed) for seed in (3, 3, 4))
    assert type(one) is type(same)
    assert all(torch.equal(tensor, state(same)[key]) for key, tensor in state(one).items())
    assert torch.equal(one(X).probs, same(X).probs)
    assert not torch.allclose(one(X).probs, other(X).probs)


class Killed(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Killing(Stateless):
    """Draws from the stream at every call, and ends the fit at one of them (0: never)."""

    at: int = 0
    calls: list[int] = dataclasses.field(default_factory=list)

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        self.calls.append(1)
        if len(self.calls) == self.at:
            raise Killed
        return inner(forward) + 0.01 * torch.randn(()) * forward.outputs.square().mean()


@each_sampler
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_fit_killed_in_mid_epoch_goes_on_to_the_bit(sampler, share, tmp_path: Path):
    chosen = small(sampler, 3)
    runtime = Runtime(folder=tmp_path, checkpoint_seconds=0.0)
    watched = Killing()
    whole = recipe(chosen, watched).fit(TASK, 3, rehearsed=True)
    with pytest.raises(Killed):
        recipe(chosen, Killing(at=round(share * len(watched.calls)))).fit(TASK, 3, runtime, rehearsed=True)
    assert (tmp_path / "state.pt").exists()
    resumed = recipe(chosen, Killing()).fit(TASK, 3, runtime, rehearsed=True)
    assert all(torch.equal(tensor, state(resumed)[key]) for key, tensor in state(whole).items())
    assert torch.equal(whole(X).probs, resumed(X).probs)


@each_sampler
def test_it_learns_stripes(sampler):
    chosen = small(sampler, 10, 16)
    heard: list[float] = []
    runtime = Runtime(report=lambda progress: heard.append(progress.loss))
    predictor = recipe(chosen, style="resnet").fit(LEARNABLE, 0, runtime)
    assert len(heard) == chosen.epochs == 10
    assert heard[-1] < heard[0]
    x, y = LEARNABLE.train.x / 255, LEARNABLE.train.y
    assert -predictor(x).log_prob(y).mean() < heard[0]


def prepared(sampler: Any, *, freeze: bool = False, task: Any = TASK) -> tuple[Network, Any]:
    network = recipe(sampler).build(task).train()
    if freeze:
        network.features[2].requires_grad_(False)
        network.freeze(network.head)
    return network, sampler.init(network, task.sealed(), Run(0))


@each_sampler
def test_it_moves_exactly_what_requires_grad(sampler):
    chosen = small(sampler, 2)
    network = recipe(chosen).build(TASK)
    network.features[2].requires_grad_(False)
    network.freeze(network.head)
    held = {key: tensor.clone() for key, tensor in network.named_parameters()}
    resting = {key for key, tensor in network.named_parameters() if not tensor.requires_grad}
    state_of = network.head.weight.clone()
    train(network, TASK.sealed(), (), chosen, Run(0))
    moved = {key for key, tensor in network.named_parameters() if not torch.equal(tensor, held[key])}
    tuned = {key for key in held if key.startswith("hyper.")}  # these wait for who tunes them
    assert resting - tuned
    assert moved - tuned == set(held) - resting
    assert torch.equal(network.head.weight, state_of)


@each_sampler
def test_the_state_holds_its_network_and_a_step_returns_its_loss(sampler):
    chosen = small(sampler, 2)
    network, sampling = prepared(chosen)
    assert sampling.network is network
    loss = chosen.step(sampling, network_loss, next(TASK.train.ordered(chosen.batch_size or 24)))
    assert loss.shape == ()
    assert loss.isfinite()
    assert not loss.requires_grad


@each_sampler
def test_states_can_be_stored_without_pickled_classes(sampler, tmp_path: Path):
    chosen = small(sampler, 2)
    _, sampling = prepared(chosen)
    chosen.step(sampling, network_loss, next(TASK.train.ordered(chosen.batch_size or 24)))
    torch.save(sampling.state_dict(), tmp_path / "state.pt")
    stored = torch.load(tmp_path / "state.pt", weights_only=True)
    _, other = prepared(chosen)
    other.load_state_dict(stored)
    assert type(chosen.predictor(other)) is type(chosen.predictor(sampling))


@each_sampler
@pytest.mark.parametrize("style", STYLES)
def test_it_trains_every_style_of_network_or_says_why_not(sampler, style):
    _, surgery = company(sampler, "mlp-norm")
    chosen = Recipe(backbone=STYLES[style], surgery=surgery, sampler=small(sampler, 1))
    fitted, _ = attempt(lambda: chosen.fit(TASK, 0))
    assert fitted is None or fitted(X).probs.isfinite().all()


@pytest.mark.partners(3, "sampler", "around")
@each_sampler
@pytest.mark.parametrize("around", WRAPPERS, ids=name)
def test_wrappers_take_it_or_say_why_not(sampler, around):
    nested = dataclasses.replace(around, inner=sampler)
    fitted, _ = attempt(lambda: recipe(small(nested, 2)).fit(TASK, 0))
    assert fitted is None or fitted(X).probs.isfinite().all()
