"""Late-phase weights: who moves when, what is averaged, and how it goes on."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import network_loss
from levelhead.network import Network
from levelhead.predictor import Point, WeightSamples
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.late_phase import LatePhase, late
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import CannotCompose

TASK = stripes(n=60, size=6)
WEIGHT = "features.hidden1.linear.weight"  # shared
INNER = SGD(epochs=4, batch_size=15, lr=0.1)  # 60 training rows: 4 steps an epoch


def made(norm: bool = True) -> Network:
    torch.manual_seed(0)
    return MLP(hidden=(5,), batch_norm=norm)(TASK.signature).train()


def steps(count: int):
    batches = [batch for epoch in range(9) for batch in TASK.train.batches(15, torch.Generator().manual_seed(epoch))]
    return batches[:count]


def walked(spec: LatePhase, count: int):
    state = spec.init(made(), TASK, Run(0))
    for batch in steps(count):
        spec.step(state, network_loss, batch)
    return state


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}


def test_before_the_split_it_is_the_inner_sampler() -> None:
    spec = LatePhase(inner=INNER, begin=0.5)
    plain, state = INNER.init(made(), TASK, Run(0)), walked(spec, 8)
    for batch in steps(8):
        INNER.step(plain, network_loss, batch)
    assert not state.copies
    for one, other in zip(plain.network.parameters(), state.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_copies_take_turns_and_the_rest_is_shared() -> None:
    spec = LatePhase(inner=INNER, begin=0.5, num_members=3)
    state = walked(spec, 8)
    batches = steps(12)
    for turn in range(4):
        before = [copied(own["values"]) for own in state.copies]
        shared = state.network.get_parameter(WEIGHT).detach().clone()
        spec.step(state, network_loss, batches[8 + turn])
        assert len(state.copies) == 3
        if before:
            pairs = zip(state.copies, before, strict=True)
            moved = [any(not torch.equal(own["values"][n], old[n]) for n in state.parameters) for own, old in pairs]
            assert moved == [number == turn % 3 for number in range(3)]
        assert not torch.equal(state.network.get_parameter(WEIGHT), shared)


def test_copies_of_no_noise_on_equal_batches_are_the_plain_run() -> None:
    spec = LatePhase(inner=AdamW(epochs=4, batch_size=60, lr=0.01), begin=0.0, num_members=1, noise=0.0)
    plain, state = spec.inner.init(made(), TASK, Run(0)), spec.init(made(), TASK, Run(0))
    for batch in steps(5):
        spec.inner.step(plain, network_loss, batch)
        spec.step(state, network_loss, batch)
    for name, t in plain.network.state_dict().items():
        assert torch.equal(t, state.network.state_dict()[name]), name


def test_the_spread_at_first_is_the_noise() -> None:
    state = walked(LatePhase(inner=INNER, begin=0.5), 8)
    before = copied(dict(state.network.named_parameters()))
    state.network.get_parameter("features.hidden1.norm.weight").data.fill_(2.0)
    state.split(400, 0.1)
    values = torch.stack([own["values"]["features.hidden1.norm.weight"] for own in state.copies])
    assert float(values.std()) == pytest.approx(0.2, rel=0.1)
    assert_close(values.mean(0), torch.full((5,), 2.0), atol=0.04, rtol=0)
    assert_close(state.network.get_parameter(WEIGHT), before[WEIGHT])


def test_the_prediction_is_at_the_mean_of_the_copies_or_their_mixture() -> None:
    spec = LatePhase(inner=INNER, begin=0.5, num_members=3)
    state = walked(spec, 13)
    averaged = spec.predictor(state)
    assert isinstance(averaged, Point)
    for name in state.names:
        mean = torch.stack([own["values"][name] for own in state.copies]).mean(0)
        assert_close(averaged.network.state_dict()[name], mean)
    x = TASK.test.x / 255
    mixture = LatePhase(inner=INNER, begin=0.5, num_members=3, average=False).predictor(state)
    assert isinstance(mixture, WeightSamples)
    state.take(1)
    assert_close(mixture(x).logits[1], Point(state.network)(x).logits[0])


def test_a_run_too_short_for_the_split_ends_where_it_stands() -> None:
    spec = LatePhase(inner=INNER, begin=0.9)
    state = walked(spec, 3)
    assert spec.predictor(state).network is state.network


def test_which_parameters_are_split() -> None:
    network = made()
    norms = {"features.hidden1.norm.weight", "features.hidden1.norm.bias"}
    assert late(network, "auto") == late(network, "norms") == norms
    assert late(network, "head") == {"head.weight", "head.bias"}
    assert late(network, "all") == {name for name, _ in network.named_parameters()}
    assert late(made(norm=False), "auto") == {"head.weight", "head.bias"}
    network.get_parameter("features.hidden1.norm.weight").requires_grad_(False)
    assert late(network, "norms") == {"features.hidden1.norm.bias"}
    with pytest.raises(ValueError, match="parameters='norms'"):
        late(made(norm=False), "norms")


def test_wrong_settings_are_refused() -> None:
    for changes in ({"num_members": 0}, {"begin": 1.0}, {"noise": -1.0}, {"parameters": "some"}):
        with pytest.raises(ValueError, match="LatePhase: "):
            LatePhase(**changes)
    with pytest.raises(CannotCompose, match=r"LatePhase\(inner=SGD\(\)\)"):
        LatePhase(inner=SWAG()).init(made(), TASK, Run(0))
