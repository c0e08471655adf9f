"""What every surgery must do on the styles of network that it accepts: three for a test, others for the next."""

import copy
from typing import Any

import pytest
import torch
from contracts.styles import STYLES, TASK, X, Y, applicable, attempt, made, name, refusal, specs
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.declared import Membered, Stochastic
from levelhead.measuring import stable_seed
from levelhead.network import Network
from levelhead.passes import noise_state, side_pass

SURGERIES = specs("surgeries")
each_surgery = pytest.mark.parametrize("surgery", SURGERIES, ids=name)


@pytest.fixture
def styles(request: pytest.FixtureRequest, surgery: Any) -> list[str]:
    """Three styles that the surgery accepts, others for every test; all of them with --all-pairs."""
    found = sorted(applicable(surgery), key=lambda style: stable_seed(request.node.name, style))
    return found if request.config.getoption("--all-pairs") else found[:3]


def samples(network: Network) -> int | None:
    return 3 if network.stochastic else None


def buffers(network: Network) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in network.named_buffers()}


def operated(surgery: Any, style: str, **changes: Any) -> tuple[Network, Network]:
    """The network before and after."""
    before = made(style, **changes)
    torch.manual_seed(1)
    return before, surgery(before)


@each_surgery
def test_it_works_on_some_style_and_refuses_the_others_with_advice(surgery):
    assert "" in {refusal(surgery, style) for style in STYLES}


@each_surgery
def test_the_argument_is_untouched(surgery, styles):
    for style in styles:
        before = made(style).eval()
        state, structure = copy.deepcopy(before.state_dict()), repr(before)
        declared = (before.num_members, before.num_samples, before.notes, before.width)
        after = surgery(before)
        assert after is not before
        assert repr(before) == structure, style
        assert (before.num_members, before.num_samples, before.notes, before.width) == declared, style
        assert not any(module.training for module in before.modules()), style
        shared = {id(p) for p in before.parameters()} & {id(p) for p in after.parameters()}
        assert not shared, style
        with torch.no_grad():
            for parameter in after.parameters():
                parameter.add_(1)
        for key, tensor in before.state_dict().items():
            assert torch.equal(tensor, state[key]), f"{style}: {key}"


@each_surgery
def test_it_notes_what_it_did(surgery, styles):
    for style in styles:
        before, after = operated(surgery, style)
        notes = after.notes[len(before.notes) :]
        assert notes, style
        assert all(note.converted for note in notes), style
        known = dict(after.named_modules(remove_duplicate=False))
        assert all(place in known for note in notes for place in note.converted), style


@each_surgery
def test_the_shape_of_outputs_is_kept(surgery, styles):
    for style in styles:
        before, after = operated(surgery, style)
        assert after.num_outputs == before.num_outputs
        rows = after.num_members
        assert after.train()(X).shape == (rows, len(X), 3), style
        after.eval()
        assert after(X).shape == (rows, len(X), 3), style
        assert after(X, num_samples=2).shape == (2 * rows, len(X), 3), style
        assert after.embed(X).shape == (rows, len(X), after.width), style
        own = after(X[: 2 * rows], per_member=True)
        assert own.shape == (rows, 2, 3), style
        assert all(row.isfinite().all() for row in (after(X), after(X, num_samples=2), own)), style


@each_surgery
def test_weights_of_kept_and_adapted_layers_are_kept(surgery, styles):
    """`redraws: ClassVar = True` says that the places it converts start anew, as its paper has it."""
    for style in styles:
        before, after = operated(surgery, style)
        converted = {place for note in after.notes for place in note.converted}
        held = list(after.state_dict().values())
        for key, tensor in before.state_dict().items():
            place = key.rpartition(".")[0]
            if place not in converted and not any(place.startswith(f"{c}.") for c in converted):
                assert torch.equal(after.state_dict()[key], tensor), f"{style}: {key}"
            elif not place.startswith("head") and not getattr(
                surgery, "redraws", False
            ):  # a head may be of another kind
                # as it was, or every member's as it was
                alike = [t for t in held if t.shape in (tensor.shape, (after.num_members, *tensor.shape))]
                assert any(torch.equal(t, tensor.expand_as(t)) for t in alike), f"{style}: {key}"


@each_surgery
def test_dtype_mode_and_frozen_weights_are_kept(surgery, styles):
    for style in styles:
        before = made(style).double().eval()
        frozen = dict(before.features.named_parameters())
        first = next(iter(frozen))
        frozen[first].requires_grad_(False)
        before.freeze(before.features[0])
        value = frozen[first].clone()
        after, _ = attempt(lambda before=before: surgery(before))
        if after is None:  # frozen weights may be refused by what draws all weights anew
            assert getattr(surgery, "redraws", False), style
            continue
        assert {p.dtype for p in after.parameters()} == {torch.float64}, style
        assert {b.dtype for b in after.buffers() if b.is_floating_point()} <= {torch.float64}, style
        assert not any(module.training for module in after.modules()), style
        kept = [p for p in after.features.parameters() if p.shape == value.shape and torch.equal(p, value)]
        assert kept, f"{style}: {first}"
        assert not any(p.requires_grad for p in kept), f"{style}: {first}"
        after.train()
        assert after.frozen >= before.frozen
        assert all(not after.get_submodule(place).training for place in before.frozen), style
        assert after(X.double()).dtype == torch.float64, style


@each_surgery
def test_nested_layers_are_replaced_like_flat_ones(surgery):
    def network(nested: bool) -> Network:
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
        layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU()]
        stages: nn.Module = nn.Sequential(*layers)
        if nested:
            stages = nn.Sequential(nn.Sequential(*layers[:3], nn.Sequential(nn.Sequential(*layers[3:6]))), *layers[6:])
        return Network(stages, nn.Linear(8, 3), TASK.signature, width=8)

    flat, nested = surgery(network(False)), surgery(network(True))
    kinds = [[type(m).__name__ for m in n.modules() if type(m) is not nn.Sequential] for n in (flat, nested)]
    assert sorted(kinds[0]) == sorted(kinds[1])


def sharing() -> dict[str, Network]:
    """Networks in which one module stands in two places, the second and the fourth stage."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.2))
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.AvgPool2d(2))
    flat = [nn.Sequential(nn.Flatten(), nn.Linear(144, 6)), dense, nn.Tanh(), dense]
    pixels = [nn.Conv2d(1, 4, 3, padding=1), block, nn.Conv2d(4, 4, 1), block, nn.Flatten()]
    return {
        "dense": Network(nn.Sequential(*flat), nn.Linear(6, 3), TASK.signature, width=6),
        "pixels": Network(nn.Sequential(*pixels), nn.Linear(36, 3), TASK.signature, width=36),
    }


@each_surgery
def test_shared_layers_stay_shared(surgery):
    worked = []
    for kind, before in sharing().items():
        after, _ = attempt(lambda before=before: surgery(before))
        worked.append(after is not None)
        assert after is None or after.features[1] is after.features[3], kind
    assert any(worked)


@each_surgery
def test_every_parameter_gets_a_gradient(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        outputs = after.train()(X)
        after.likelihood.loss(outputs, Y).backward()
        resting = {id(p) for place in after.frozen for p in after.get_submodule(place).parameters()}
        moving = [(n, p) for n, p in after.named_parameters() if p.requires_grad and id(p) not in resting]
        idle = [n for n, p in moving if p.grad is None or not p.grad.any()]
        assert not idle, f"{style}: {idle}"
        assert all(p.grad.isfinite().all() for _, p in moving), style


@each_surgery
def test_gradients_reach_the_input(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        x = X.clone().requires_grad_(True)
        after.eval()(x, num_samples=samples(after)).square().sum().backward()
        assert x.grad is not None, style
        assert x.grad.flatten(1).any(1).all(), style


@each_surgery
def test_prediction_moves_nothing(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        after.train()(X)
        after.eval()
        held = {n: t.clone() for n, t in after.state_dict().items()}
        after(X, num_samples=samples(after))
        for key, tensor in after.state_dict().items():
            assert torch.equal(tensor, held[key]), f"{style}: {key}"


@each_surgery
def test_side_passes_move_no_statistic_and_training_passes_replace_theirs(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        after.train()
        held, objects = buffers(after), dict(after.named_buffers())
        stream = noise_state(after.device)
        with side_pass(after, stream):
            first = after(X)
        with side_pass(after, stream):
            assert_close(after(X), first)
        for key, tensor in after.named_buffers():
            assert torch.equal(tensor, held[key]), f"{style}: {key}"
        after(X).sum().backward()
        foreign = {id(b) for m in after.modules() if isinstance(m, nn.modules.batchnorm._NormBase) for b in m.buffers()}
        for key, tensor in objects.items():
            if id(tensor) not in foreign:  # torch's own layers write in place
                assert torch.equal(tensor, held[key]), f"{style}: {key} was written to"


@each_surgery
def test_evaluation_repeats_itself_and_draws_only_on_request(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        after.eval()
        assert torch.equal(after(X), after(X)), style
        if not after.stochastic:
            assert_close(after(X, num_samples=2)[0], after(X)[0])
            continue
        drawn = after(X, num_samples=3)
        assert not torch.allclose(drawn[0], drawn[1]), style
        assert not any(layer.sampling for layer in after.layers(Stochastic)), style


@each_surgery
def test_what_is_promised_to_be_exact_at_rest_is(surgery, styles):
    """`exact_at_rest: ClassVar = True` says that outputs are the original's where nothing draws."""
    for style in styles if getattr(surgery, "exact_at_rest", False) else ():
        before, after = operated(surgery, style)
        assert_close(after.eval()(X), before.eval()(X), rtol=1e-4, atol=1e-5)


@each_surgery
def test_members_differ(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        rows = after.eval()(X)
        for k in range(1, after.num_members):
            assert not torch.allclose(rows[0], rows[k]), f"{style}: members 0 and {k}"
        membered = [layer for layer in after.layers(Membered) if isinstance(layer, Membered)]
        assert {layer.num_members for layer in membered} <= {after.num_members}, style
        assert membered or after.num_members == 1, style


@each_surgery
def test_rows_do_not_depend_on_their_company(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        after.eval()
        assert_close(after(X[:2]), after(X)[:, :2], rtol=1e-4, atol=1e-5, msg=lambda text, s=style: f"{s}: {text}")


@each_surgery
def test_the_state_is_the_whole_network(surgery, styles):
    for style in styles:
        one, other = made(style, surgery, seed=0), made(style, surgery, seed=1)
        one.train()(X)
        other.load_state_dict(one.state_dict())
        assert torch.equal(other.eval()(X), one.eval()(X)), style


@each_surgery
def test_the_seed_decides_everything(surgery, styles):
    for style in styles:
        one, same = made(style, surgery, seed=3), made(style, surgery, seed=3)
        assert repr(one) == repr(same), style
        for key, tensor in one.state_dict().items():
            assert torch.equal(tensor, same.state_dict()[key]), f"{style}: {key}"


@pytest.mark.partners(6, "surgery", "second")
@each_surgery
@pytest.mark.parametrize("second", SURGERIES, ids=name)
def test_a_second_surgery_on_top_works_or_says_why_not(surgery, second):
    """On each of three styles that both accept alone."""
    both = set(applicable(surgery)) & set(applicable(second))
    for style in [style for style in ("foreign", "resnet", "tokens") if style in both]:
        once = made(style, surgery)
        held = copy.deepcopy(once.state_dict())
        twice, _ = attempt(lambda once=once: second(once))
        if twice is None:
            continue
        assert len(twice.notes) > len(once.notes), style
        assert all(torch.equal(t, held[key]) for key, t in once.state_dict().items()), style
        rows = twice.num_members
        assert twice.train()(X).shape == (rows, len(X), 3), style
        twice.likelihood.loss(twice(X), Y).backward()
        outputs = twice.eval()(X, num_samples=samples(twice))
        assert len(outputs) == rows * (samples(twice) or 1), style
        assert outputs.isfinite().all(), style


@each_surgery
def test_a_network_with_nothing_to_replace_is_refused_or_its_head_is_changed(surgery):
    bare = Network(nn.Flatten(), nn.Linear(144, 3), TASK.signature, width=144)
    after, _ = attempt(lambda: surgery(bare))
    if after is None:
        return
    assert after.notes[-1].converted
    assert repr(after) != repr(bare)
    assert after(X).shape == (after.num_members, len(X), 3)


@each_surgery
def test_every_tensor_is_registered_so_that_it_moves_with_the_network(surgery, styles):
    for style in styles:
        _, after = operated(surgery, style)
        loose = [(n, key) for n, m in after.named_modules() for key, t in vars(m).items() if isinstance(t, Tensor)]
        assert not loose, f"{style}: {loose}"
        if torch.cuda.is_available():
            moved = surgery(made(style).cuda())
            assert {t.device.type for t in moved.state_dict().values()} == {"cuda"}, style
            assert moved.eval()(X.cuda(), num_samples=samples(moved)).device.type == "cuda", style
