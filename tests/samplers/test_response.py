"""Delta-STN: the linear response against finite differences, two groups that move apart, and a ridge regression."""

import copy
import dataclasses
import math

import pytest
import torch
from contracts.styles import TASK, made
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.layers.conditional_weights import ConditionalWeights, linearised
from levelhead.network import Network
from levelhead.recipe import Recipe
from levelhead.samplers._response import linear_outputs, mine
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.alternating import Alternating, AlternatingState
from levelhead.samplers.ema import EMA
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.self_tuning import SelfTuning
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose

DELTA = SelfTuning(centred=True, dropout_range=(0.01, 0.9), embedding_scale=0.3)
SPEC = Alternating(inner=AdamW(epochs=2, batch_size=12, weight_decay=0.0), lr=0.05, response="linear")


def batch(network: Network, scale: float = 1.0) -> Batch:
    """Rows, each with a step away from the present hyper-parameters."""
    rows = next(TASK.train.ordered(12))
    generator = torch.Generator().manual_seed(3)
    step = scale * torch.randn(1, len(rows.x), len(network.hyper.names), generator=generator)
    return rows._replace(hyper=step.to(next(network.parameters()).dtype))


def started(spec: Alternating = SPEC, surgery: SelfTuning = DELTA) -> tuple[Network, AlternatingState]:
    network = Recipe(backbone=MLP(hidden=(8,), batch_norm=True), surgery=(surgery,)).build(TASK).train()
    return network, spec.init(network, TASK.sealed(), Run(0))


def snapshot(network: Network) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in network.state_dict().items()}


@pytest.mark.parametrize("style", ["mlp", "lenet", "resnet"])
def test_the_linear_response_is_the_directional_derivative(style):
    network = made(style, dataclasses.replace(DELTA, dropout_range=None)).double().eval()
    given = batch(network)
    given = given._replace(x=given.x.double())

    def outputs(share: float) -> Tensor:
        return network(given.x, hyper=share * given.hyper)

    eps = 1e-6
    slope = (outputs(eps) - outputs(-eps)) / (2 * eps)
    found = linear_outputs(Forward(network, given))
    assert_close(found, outputs(0.0) + slope, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, outputs(1.0), atol=1e-4)


def test_of_one_layer_the_linear_response_is_the_whole():
    network = dataclasses.replace(DELTA, dropout_range=None)(linear_model()).double().eval()
    given = batch(network)
    given = given._replace(x=given.x.double())
    assert_close(linear_outputs(Forward(network, given)), network(given.x, hyper=given.hyper))


def linear_model() -> Network:
    """A network whose only layer is its head."""
    signature = TASK.signature
    return Network(nn.Sequential(nn.Flatten()), nn.Linear(math.prod(signature.input_shape), 3), signature)


def test_the_derivative_stops_where_its_context_ends():
    network = made("mlp", DELTA).eval()
    with linearised(network):
        pass
    assert not any(layer.along_response for layer in network.layers(ConditionalWeights))
    given = batch(network)
    assert not torch.allclose(network(given.x, hyper=given.hyper), network(given.x), atol=1e-4)


def test_gradients_of_the_linear_response_are_those_of_differences():
    network = made("mlp", dataclasses.replace(DELTA, dropout_range=None)).double().eval()
    given = batch(network)
    given = given._replace(x=given.x.double())
    weights = [p for name, p in network.named_parameters() if name.endswith(("response.weight", "embedding.weight"))]

    def differences() -> Tensor:
        up, down = (network(given.x, hyper=s * given.hyper) for s in (1e-5, -1e-5))
        return (up + down) / 2 + (up - down) / 2e-5

    found = torch.autograd.grad(linear_outputs(Forward(network, given)).square().sum(), weights)
    expected = torch.autograd.grad(differences().square().sum(), weights)
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_mixed_precision_leaves_the_derivative_as_it_is():
    network = made("lenet", dataclasses.replace(DELTA, dropout_range=None)).eval()
    expected = linear_outputs(Forward(network, batch(network)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear_outputs(Forward(network, batch(network))), expected)


def test_from_zero_embeddings_these_move_first_and_nothing_is_dead():
    network, _ = started(surgery=dataclasses.replace(DELTA, embedding_scale=0.0))
    for layer in network.layers(ConditionalWeights):
        assert layer.bias_response.any()
    loss = network_loss(Forward(network, batch(network)).given(linear_outputs(Forward(network, batch(network)))))
    loss.backward()
    for layer in network.layers(ConditionalWeights):
        assert layer.embedding.weight.grad.any()
        assert not layer.response.weight.grad.any()
        assert not layer.bias_response.grad.any()


@pytest.mark.parametrize("response", ["apart", "linear"])
def test_each_group_moves_in_its_own_step(response, monkeypatch):
    network, state = started(dataclasses.replace(SPEC, response=response, every=100))
    group = {name for name, p in network.named_parameters() if p.requires_grad and mine(name.split("linear.")[-1])}
    group |= {name for name, p in network.named_parameters() if p.requires_grad and mine(name.split("head.")[-1])}
    others = {name for name, p in network.named_parameters() if p.requires_grad} - group
    assert group
    assert others
    seen: list[dict[str, Tensor]] = []
    whole = state.responding.step

    def watched(*given):
        seen.append(snapshot(network))
        return whole(*given)

    monkeypatch.setattr(state.responding, "step", watched)
    before = snapshot(network)
    SPEC.step(state, network_loss, batch(network))
    after = snapshot(network)
    (between,) = seen
    first = {name for name in before if not torch.equal(before[name], between[name])}
    second = {name for name in before if not torch.equal(between[name], after[name])}
    assert first >= others
    assert not first & group
    assert second == group  # neither statistics nor the network's own weights
    assert all(p.requires_grad for name, p in network.named_parameters() if name in group | others)


def test_the_first_step_is_that_of_the_plain_network_at_the_present_settings():
    network, state = started(surgery=dataclasses.replace(DELTA, dropout_range=None))
    seen = []

    def watched(forward: Forward) -> Tensor:
        seen.append((forward.batch.hyper, forward.outputs.detach()))
        return network_loss(forward)

    plain = network(batch(network).x).detach()
    SPEC.step(state, watched, batch(network))
    assert not seen[0][0].any()
    assert_close(seen[0][1], plain)
    assert seen[1][0].any()


def test_a_killed_fit_goes_on_to_the_bit():
    spec = dataclasses.replace(SPEC, every=2, inner=EMA(inner=SPEC.inner))
    network, state = started(spec)
    torch.manual_seed(1)
    for _ in range(3):
        spec.step(state, network_loss, batch(network))
    saved, noise = copy.deepcopy(state.state_dict()), torch.get_rng_state()
    other, fresh = started(spec)
    fresh.load_state_dict(saved)
    for each, one in ((network, state), (other, fresh)):
        torch.set_rng_state(noise)
        for _ in range(3):
            spec.step(one, network_loss, batch(each))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("surgery", [HyperBatch(num_members=2), SelfTuning()], ids=repr)
def test_networks_that_are_not_centred_are_refused_with_advice(surgery):
    with pytest.raises(CannotCompose, match=r"SelfTuning\(centred=True\)"):
        Recipe(backbone=MLP(hidden=(8,)), surgery=(surgery,), sampler=SPEC).fit(TASK, 0)


def test_wrong_responses_are_refused():
    with pytest.raises(ValueError, match="response must be one of 'joint', 'apart', 'linear'; got 'quadratic'"):
        Alternating(response="quadratic")
