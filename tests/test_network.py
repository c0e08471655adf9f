"""The member axis, late rows, replacement, freezing, wrapping, and the states a pass may not leave behind."""

import pytest
import torch
from networks import SIGNATURE, Noisy, Ranges, Scaled, Shifted, network
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead import stages as stages_module
from levelhead.declared import Stochastic
from levelhead.layers.dropout import Dropout
from levelhead.layers.gaussian_weights import gaussian_layer
from levelhead.network import Network
from levelhead.passes import keeping_statistics, noise_state, replaying, seeded, side_pass, still
from levelhead.types import CannotCompose, NoLayerReplaced

X = torch.rand(6, 4)


def by_hand(made: Network, x: Tensor, scale: Tensor) -> Tensor:
    return made.head(made.features[0](x) * scale)


def test_a_plain_network_has_one_row() -> None:
    made = network(nn.ReLU()).eval()
    assert made(X).shape == (1, 6, 3)
    assert_close(made(X)[0], made.head(made.features(X)))


def test_rows_are_members_in_order() -> None:
    made = network(Scaled(3, 5), num_members=3).eval()
    expected = torch.stack([by_hand(made, X, scale) for scale in made.features[1].scale])
    assert_close(made(X), expected)


@pytest.mark.parametrize("order", ["members first", "samples first"])
def test_rows_are_member_major_in_either_order_of_layers(order: str) -> None:
    noisy, scaled = Noisy(), Scaled(2, 5)
    stages = (scaled, noisy) if order == "members first" else (noisy, scaled)
    made = network(*stages, num_members=2, num_samples=3).eval()
    noisy.muted = True  # type: ignore[assignment]
    rows = made(X, num_samples=3)
    expected = torch.stack([by_hand(made, X, scale) for scale in scaled.scale]).repeat_interleave(3, 0)
    assert_close(rows, expected)


def test_rows_enter_before_the_first_stage_that_needs_them() -> None:
    class Counting(nn.Module):
        rows = 0

        def forward(self, x: Tensor) -> Tensor:
            self.rows = len(x)
            return x

    early, late = Counting(), Counting()
    made = network(early, Noisy(), late).eval()
    made(X, num_samples=5)
    assert (early.rows, late.rows) == (6, 30)
    made(X)
    assert (early.rows, late.rows) == (6, 6)


def in_pieces(monkeypatch: pytest.MonkeyPatch, samples: int, made: Network, x: Tensor) -> None:
    """So many samples a piece, for these rows (their features have 5 numbers)."""
    monkeypatch.setitem(stages_module.AT_ONCE, "cpu", samples * made.num_members * len(x) * 5)


def test_a_pass_in_pieces_is_passes_of_its_pieces_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(Scaled(2, 5), Dropout(0.5), nn.Linear(5, 5), Dropout(0.5), num_members=2).eval()
    in_pieces(monkeypatch, 2, made, X)
    with seeded(7):
        rows = made(X, num_samples=5)
    with seeded(7):
        pieces = [made(X, num_samples=n).unflatten(0, (2, n)) for n in (2, 2, 1)]
    assert_close(rows.unflatten(0, (2, 5)), torch.cat(pieces, 1), rtol=0, atol=0)


def test_one_piece_is_the_tiled_pass() -> None:
    made = network(Dropout(0.5), nn.Linear(5, 5), Dropout(0.5)).eval()
    with seeded(7):
        rows = made(X, num_samples=3)
    with seeded(7):
        z = made.features[0](X).repeat(3, 1)
        for layer in made.layers(Dropout):
            layer.sampling = True
        expected = made.head(made.features[1:](z)).unflatten(0, (3, 6))
    assert_close(rows, expected)


def test_the_same_seed_gives_the_same_samples_however_large_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(Dropout(0.5), nn.Linear(5, 5), Dropout(0.5)).eval()
    for at_once in (1, 2, 10):
        in_pieces(monkeypatch, at_once, made, X)
        state = noise_state(made.device)
        first = made(X, num_samples=4)
        with replaying(state, made.device):
            assert_close(made(X, num_samples=4), first, rtol=0, atol=0)
        assert not torch.allclose(first[0], first[3])


def test_draws_of_weights_depend_neither_on_the_batch_nor_on_how_many_follow() -> None:
    layers = [gaussian_layer(nn.Linear(5, 5), estimator="flipout", init_scale=0.5) for _ in range(2)]
    made = network(layers[0], nn.ReLU(), layers[1]).eval()

    def drawn(x: Tensor, num_samples: int) -> Tensor:
        with seeded(7):
            return made.embed(x, num_samples=num_samples)

    whole = drawn(X, 4)
    assert_close(drawn(X[:2], 4), whole[:, :2])
    assert_close(drawn(X, 2), whole[:2])
    assert not torch.allclose(whole[0], whole[1])


def test_what_is_in_front_of_the_draws_runs_once_and_no_piece_spoils_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoiling(Stochastic):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.mul_(2).add_(self.blocks)

    class Counting(nn.Identity):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

    before, spoiling = Counting(), Spoiling()
    made = network(before, spoiling).eval()
    in_pieces(monkeypatch, 1, made, X)
    before.calls = 0
    rows = made.embed(X, num_samples=3)
    assert (before.calls, spoiling.calls) == (1, 3)
    assert_close(rows, (made.features[0](X) * 2 + 1).expand(3, 6, 5))


def test_a_training_pass_is_never_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(Dropout(0.5), nn.BatchNorm1d(5)).train()
    in_pieces(monkeypatch, 1, made, X)
    made(X, num_samples=3)
    assert int(made.features[2].num_batches_tracked) == 1


def test_maps_of_members_and_samples_stay_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
            return x

    looks = [Looking(), Looking()]
    signature = SIGNATURE.__class__(input_shape=(2, 8, 8), num_outputs=3, likelihood=SIGNATURE.likelihood)
    stages = (nn.Conv2d(2, 5, 3), Dropout(0.5), looks[0], nn.Conv2d(5, 5, 3), looks[1])
    made = Network(nn.Sequential(*stages), nn.Linear(5, 3), signature, channel=1).eval()
    made.declare(num_members=2)
    for at_once in (2**20, 1):
        monkeypatch.setitem(stages_module.AT_ONCE, "cpu", at_once)
        made(torch.rand(3, 2, 8, 8), num_samples=2)
        assert [look.last for look in looks] == [True, True]


def test_features_without_rows_are_shared_by_all_rows() -> None:
    made = network(nn.ReLU(), num_members=2).eval()
    made.head = nn.Sequential(Scaled(2, 5), nn.Linear(5, 3))
    assert made.embed(X).shape == (2, 6, 5)
    assert_close(made.embed(X)[0], made.embed(X)[1])
    assert not torch.allclose(made(X)[0], made(X)[1])


def test_inputs_of_each_member() -> None:
    made = network(Scaled(2, 5), num_members=2).eval()
    own = torch.rand(12, 4)
    joint = made(own, per_member=True)
    assert_close(joint[0], made(own[:6])[0])
    assert_close(joint[1], made(own[6:])[1])
    with pytest.raises(ValueError, match="no multiple of 2 members"):
        made(torch.rand(7, 4), per_member=True)


def test_eval_never_draws_unless_asked() -> None:
    made = network(Noisy(), num_samples=4).eval()
    assert_close(made(X), made(X))
    drawn = made(X, num_samples=4)
    assert drawn.shape == (4, 6, 3)
    assert not torch.allclose(drawn[0], drawn[1])
    assert not any(layer.sampling for layer in made.layers(Stochastic))
    assert made.train()(X).shape == (1, 6, 3)  # training draws once


def test_pixel_maps_come_out_channels_last() -> None:
    signature = SIGNATURE.__class__(input_shape=(2, 8, 8), num_outputs=3, likelihood=SIGNATURE.likelihood)
    made = Network(nn.Conv2d(2, 5, 3, padding=1), nn.Linear(5, 3), signature, channel=1)
    assert made.width == 5
    assert made(torch.rand(4, 2, 8, 8)).shape == (1, 4, 8, 8, 3)


def test_hyper_parameters_reach_their_layers_and_default_to_the_mean() -> None:
    made = network(Shifted(2), num_members=2).eval()
    made.hyper = Ranges([1.0, -1.0])
    hyper = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 6, 1)
    assert_close(made(X), made(X, hyper=hyper))
    assert_close(made(X)[0], made.head(made.features[0](X) + 1))
    joint = made(torch.cat([X, X]), hyper=hyper)  # a joint pass repeats the draws in whole blocks
    assert_close(joint[:, :6], made(X))
    assert_close(joint[:, 6:], made(X))
    assert made.features[1].condition is None
    with pytest.raises(ValueError, match="no hyper-parameters"):
        network()(X, hyper=hyper)


def test_a_layer_of_members_outside_a_network_says_so() -> None:
    with pytest.raises(ValueError, match="call it through a Network"):
        Scaled(2, 5)(torch.rand(3, 5))


def test_replace_leaves_its_argument_and_notes_what_it_did() -> None:
    made = network(nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU())))
    new = made.replace(lambda name, m: isinstance(m, nn.ReLU), lambda m: nn.Tanh(), author="test")
    assert [type(m) for m in made.features.modules()].count(nn.ReLU) == 2
    assert [type(m) for m in new.features.modules()].count(nn.Tanh) == 2
    assert new.notes[-1].converted == ("features.1.0", "features.1.1.0")
    assert new.features[0].weight is not made.features[0].weight
    assert_close(new.features[0].weight, made.features[0].weight)


def test_replace_keeps_sharing() -> None:
    shared = nn.Linear(5, 5)
    made = network(shared, nn.ReLU(), shared)
    new = made.replace(lambda name, m: name.endswith(("1", "3")), lambda m: nn.Sequential(m))
    assert new.features[1] is new.features[3]
    assert new.features[1] is not made.features[1]


def test_replace_carries_mode_and_dtype() -> None:
    made = network(nn.Linear(5, 5)).double().eval()
    made.features[1].train()
    new = made.replace(lambda name, m: name == "features.1", lambda m: nn.Sequential(nn.Linear(5, 5), nn.ReLU()))
    assert new.features[1][0].weight.dtype == torch.float64
    assert new.features[1][1].training
    assert not new.features[0].training


def test_replace_of_nothing_raises() -> None:
    with pytest.raises(NoLayerReplaced, match="blur found nothing to change among the 3 modules"):
        network().replace(lambda name, m: False, lambda m: m, author="blur")


def test_members_must_agree() -> None:
    with pytest.raises(CannotCompose, match="one surgery declared 2, another 3"):
        network(num_members=2).declare(num_members=3)


def test_frozen_modules_stay_in_eval_and_get_no_gradient() -> None:
    made = network(nn.BatchNorm1d(5))
    made.freeze(made.features[1])
    made.train()
    before = made.features[1].running_mean.clone()
    made(X).sum().backward()
    assert not made.features[1].training
    assert_close(made.features[1].running_mean, before)
    assert made.features[1].weight.grad is None
    with pytest.raises(ValueError, match="not part"):
        made.freeze(nn.Linear(2, 2))


def test_still_is_quiet_and_puts_everything_back() -> None:
    made = network(Noisy(), nn.BatchNorm1d(5)).train()
    made.features[0].weight.requires_grad_(False)
    modes = [m.training for m in made.modules()]
    required = [p.requires_grad for p in made.parameters()]
    with still(made):
        assert_close(made(X, num_samples=1), made(X, num_samples=1))
        assert not made(X).requires_grad
    assert [m.training for m in made.modules()] == modes
    assert [p.requires_grad for p in made.parameters()] == required
    assert not made.features[1].muted


def test_side_passes_replay_the_noise_and_move_no_statistic() -> None:
    made = network(nn.BatchNorm1d(5), Noisy()).train()
    statistics = {name: b.clone() for name, b in made.named_buffers()}
    stream = noise_state(made.device)
    with side_pass(made, stream):
        first = made(X)
    with side_pass(made, stream):
        second = made(X)
    assert_close(first, second)
    for name, buffer in made.named_buffers():
        assert_close(buffer, statistics[name])
    assert_close(first, made(X))  # the outer stream had not moved


def test_keeping_statistics_survives_an_error() -> None:
    made = network(nn.BatchNorm1d(5)).train()
    with pytest.raises(RuntimeError, match="boom"), keeping_statistics(made):
        raise RuntimeError("boom")
    assert made.features[1].track_running_stats


def test_replayed_and_seeded_noise_leave_the_outer_stream_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    stream = noise_state(torch.device("cpu"))
    with seeded(9):
        inside = torch.randn(4)
    with replaying(stream, torch.device("cpu")):
        assert_close(torch.randn(4), expected)
    assert_close(torch.randn(4), expected)
    with seeded(9):
        assert_close(torch.randn(4), inside)


class Foreign(nn.Module):
    """A module of somebody else's."""

    def __init__(self, after: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.fc = nn.Linear(5, 3)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        out = self.fc(self.trunk(x).relu())
        return out.softmax(-1) if self.after else out


def test_wrap_computes_what_the_module_computes() -> None:
    module = Foreign()
    made = Network.wrap(module, head="fc", signature=SIGNATURE)
    assert_close(made(X)[0], module(X))
    assert made.width == 5
    assert isinstance(module.fc, nn.Linear)  # the module is not touched


def test_wrap_refuses_what_is_no_head() -> None:
    with pytest.raises(CannotCompose, match="something after 'fc'"):
        Network.wrap(Foreign(after=True), head="fc", signature=SIGNATURE)
    with pytest.raises(ValueError, match=r"must name the last nn.Linear.*'trunk', 'fc'"):
        Network.wrap(Foreign(), head="classifier", signature=SIGNATURE)


def test_trace_lists_calls_in_order_with_shapes() -> None:
    made = network(nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))
    calls = made.trace().calls
    assert [call.name for call in calls] == [
        "features",
        "features.0",
        "features.1",
        "features.1.0",
        "features.1.1",
    ]
    assert calls[1].output_shape == (2, 5)
    assert made.trace().functional_dropout == ()


def test_trace_sees_functional_dropout_only() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Dropout(0.2)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.own(x), 0.3, self.training)

    made = network(Dropping(), nn.Dropout(0.0))
    assert made.trace().functional_dropout == (0.3,)


def test_a_stage_is_appended_behind_the_features() -> None:
    made = network(nn.ReLU())
    longer = made.appended(Noisy(), name="noise", author="Test")
    assert [name for name, _ in longer.features.named_children()] == ["0", "1", "noise"]
    assert longer.notes[-1].converted == ("features.noise",)
    assert_close(longer.eval()(X), made.eval()(X))
    assert not made.notes
    assert len(made.features) == 2
    foreign = Network.wrap(Foreign(), head="fc", signature=SIGNATURE).appended(nn.Tanh(), name="tanh", author="Test")
    assert_close(foreign(X)[0], foreign.head(torch.tanh(foreign.features.trunk(X))))


def test_replacing_goes_on_inside_what_a_replacement_kept() -> None:
    made = network(nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU()))).double().eval()
    kept = made.features[1]
    kept[1].train()

    def match(name: str, module: nn.Module) -> bool:
        return name in ("features.1", "features.1.1.0")

    def make(module: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 5), module) if isinstance(module, nn.Sequential) else nn.Tanh()

    outside = made.replace(match, make)
    assert outside.notes[-1].converted == ("features.1",)
    both = made.replace(match, make, inside=True)
    assert both.notes[-1].converted == ("features.1", "features.1.1.0")
    assert isinstance(both.features[1][1][1][0], nn.Tanh)
    added, old = both.features[1]
    assert added.weight.dtype == torch.float64
    assert not added.training
    assert old[1].training  # what was kept keeps its mode


def test_a_stage_that_stands_twice_runs_twice() -> None:
    twice = nn.Linear(5, 5)
    made = network(twice, nn.ReLU(), twice)
    expected = made.head(twice(twice(made.features[0](X)).relu()))
    assert_close(made(X)[0], expected)
    assert len(made.appended(nn.ReLU(), name="act", author="Test").features) == 5
