"""Which steps of the features run by themselves, and how many samples go on together."""

import pytest
import torch
from networks import Noisy, Scaled
from torch import nn
from torch.testing import assert_close

from levelhead import stages
from levelhead.layers.gaussian_weights import gaussian_layer
from levelhead.stages import plan, samples_at_once, tiled


def test_sequences_are_taken_apart_only_where_something_declares() -> None:
    plain, noisy, scaled = nn.Sequential(nn.ReLU(), nn.Tanh()), Noisy(), Scaled(2, 5)
    found = plan(nn.Sequential(plain, nn.Sequential(nn.ReLU(), noisy), scaled))
    assert [stage.module for stage in found] == [plain, found[1].module, noisy, scaled]
    assert [stage.stochastic for stage in found] == [False, False, True, False]
    assert [stage.membered for stage in found] == [False, False, False, True]
    assert [stage.module for stage in plan(plain)] == [plain]


def test_a_sequence_with_a_hook_stays_whole() -> None:
    inner = nn.Sequential(nn.ReLU(), Noisy())
    inner.register_forward_hook(lambda module, inputs, output: None)
    assert next(iter(plan(nn.Sequential(inner, nn.Tanh())))).module is inner


def test_a_piece_is_as_many_samples_as_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stages.AT_ONCE, "cpu", 100)
    noisy = plan(nn.Sequential(Noisy()))
    assert [samples_at_once(noisy, torch.zeros(rows, 5)) for rows in (5, 6, 20, 50)] == [4, 3, 1, 1]
    weights = plan(nn.Sequential(gaussian_layer(nn.Linear(5, 5), estimator="shared", init_scale=0.1)))
    assert samples_at_once(weights, torch.zeros(5, 5)) == 1


def test_tiled_rows_stand_block_by_block_in_the_layout_they_had() -> None:
    z = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    rows = tiled(z, 2, 3)
    assert_close(rows, z.repeat_interleave(3, 0))
    assert rows.is_contiguous(memory_format=torch.channels_last)
