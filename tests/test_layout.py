"""Kernels with channels innermost, and new layers brought where old ones were."""

import pytest
import torch
from torch import nn

from levelhead.layout import channels_innermost, like
from levelhead.likelihood import Signature
from levelhead.network import Network


@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_lie_with_channels_innermost_in_their_strides_too(channels) -> None:
    kernels = torch.arange(2 * channels * 9.0).reshape(2, channels, 3, 3)
    laid_out = channels_innermost(kernels)
    assert torch.equal(laid_out, kernels)
    assert laid_out.stride() == (9 * channels, 1, 3 * channels, channels)
    conv = nn.Conv2d(channels, 2, 3)
    made = Network(conv, nn.Linear(2, 2), Signature((channels, 5, 5), 2), channel=1)
    for version in (made, made.copy()):
        assert version.features.weight.stride() == laid_out.stride()  # type: ignore[union-attr]


def test_a_new_layer_takes_dtype_and_mode_and_leaves_what_it_kept() -> None:
    old = nn.Linear(3, 3).double().eval()
    inside = nn.Conv2d(2, 2, 3)
    new = like(old, nn.Sequential(old, inside, nn.BatchNorm1d(3)), torch.empty(0))
    assert {t.dtype for t in new.state_dict().values() if t.is_floating_point()} == {torch.float64}
    assert new[2].num_batches_tracked.dtype == torch.int64
    assert not any(module.training for module in new.modules())
    assert inside.weight.stride() == (18, 1, 6, 2)


def test_in_place_of_a_layer_without_tensors_the_network_decides() -> None:
    new = like(nn.ReLU(), nn.Linear(3, 3), torch.empty(0, dtype=torch.float16))
    assert new.weight.dtype == torch.float16
    assert new.training
