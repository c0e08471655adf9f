"""What becomes of a network after any surgery: it is saved, compiled, run in half precision, its maps channels-last."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.styles import TASK, X, Y, applicable, attempt, made, name, specs
from contracts.test_surgery import samples
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.measuring import stable_seed
from levelhead.network import Network
from levelhead.predictor import Point
from levelhead.storage import load, save

each_surgery = pytest.mark.parametrize("surgery", specs("surgeries"), ids=name)
ON_MAPS = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
HALF = 0.05  # of the outputs' length: bfloat16 keeps 8 bits, and the styles are a few layers deep


@pytest.fixture
def styles(request: pytest.FixtureRequest, surgery: Any) -> list[str]:
    """Three styles that the surgery accepts, others for every test; all of them with --all-pairs."""
    found = sorted(applicable(surgery), key=lambda style: stable_seed(request.node.name, style))
    return found if request.config.getoption("--all-pairs") else found[:3]


def small() -> Network:
    """A few layers, with a step over pixels, that most surgeries find something in."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return Network(layers, nn.Linear(144, 3), TASK.signature, width=144)


@each_surgery
def test_saved_and_loaded_it_is_the_same_to_the_bit(surgery, styles, tmp_path: Path):
    for style in styles:
        after = made(style, surgery)
        after.train()(X)
        after.likelihood.loss(after(X), Y).backward()
        with torch.no_grad():
            for parameter in after.parameters():
                parameter.sub_(0.1 if parameter.grad is None else 0.1 * parameter.grad)
        predictor = Point(after, noise=3).eval()
        loaded = load(save(predictor, tmp_path / style), trust=("contracts",))
        assert torch.equal(loaded(X).logits, predictor(X).logits), style
        (other,) = loaded.networks()
        state = other.state_dict()
        assert state.keys() == after.state_dict().keys(), style
        assert all(torch.equal(tensor, state[key]) for key, tensor in after.state_dict().items()), style
        assert repr(other) == repr(after), style
        assert (other.num_members, other.num_samples, other.notes) == (
            after.num_members,
            after.num_samples,
            after.notes,
        ), style


@pytest.fixture
def compiler() -> Iterator[None]:
    """torch's compiler without what it has seen; einops' functions are taken as they are, which halves the time."""
    for operation in (rearrange, reduce, repeat):
        torch.compiler.allow_in_graph(operation)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@each_surgery
@pytest.mark.usefixtures("compiler")
def test_compiled_into_one_graph_it_trains_as_before(surgery, request):
    """What dynamo captures, run as it is; with --all-pairs also taken apart into a pass forth and one back."""
    after, _ = attempt(lambda: surgery(small()))
    plain = (made(next(applicable(surgery)), surgery) if after is None else after).train()
    # a pass forth and one back do not keep the order of random draws
    apart = request.config.getoption("--all-pairs") and not plain.stochastic
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, backend="aot_eager" if apart else "eager", fullgraph=True)
    for network, call in ((plain, plain), (twin, compiled)):
        torch.manual_seed(1)
        network.likelihood.loss(call(X), Y).backward()
    assert_close([p.grad for p in twin.parameters()], [p.grad for p in plain.parameters()])
    assert_close(twin.state_dict(), plain.state_dict(), rtol=0, atol=0)


@each_surgery
def test_half_precision_is_close_and_leaves_the_weights_whole(surgery, styles):
    for style in styles:
        after = made(style, surgery).eval()
        full = after(X).detach()
        with torch.autocast("cpu", torch.bfloat16):
            half = after(X).detach()
            outputs = after.train()(X)
            loss = after.likelihood.loss(outputs, Y)
        assert half.dtype == outputs.dtype == torch.bfloat16, style
        assert (half - full).norm() < HALF * full.norm(), style
        assert loss.dtype == torch.float32, style
        loss.backward()
        asked = [n for n, p in after.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not asked, f"{style}: {asked}"
        floating = [t for t in after.state_dict().values() if t.is_floating_point()]
        assert {t.dtype for t in floating} == {torch.float32}, style
        assert all(t.isfinite().all() for t in floating), style


@each_surgery
def test_kernels_and_maps_stay_channels_last(surgery, styles):
    for style in styles:
        after = made(style, surgery)
        kernels = {n for n, p in after.named_parameters() if p.ndim == 4 and not channels_last(p)}
        assert not kernels, f"{style}: {kernels}"
        other: list[str] = []

        def look(module: nn.Module, inputs: tuple[Any, ...], other: list[str] = other) -> None:
            if not channels_last(inputs[0]):
                other.append(type(module).__name__)

        for module in after.features.modules():
            if isinstance(module, ON_MAPS):
                module.register_forward_pre_hook(look)
        after.train()(X)
        after.eval()(X, num_samples=samples(after))
        assert not other, f"{style}: {other}"


def channels_last(image: Tensor) -> bool:
    return image.is_contiguous(memory_format=torch.channels_last)
