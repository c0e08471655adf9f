"""A filter a channel: against loops, its gradient, its borders, and what it knows about itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.declared import Pace
from levelhead.layers.frequency_filters import gaussian_kernels, identity_kernels
from levelhead.layers.paced_filter import PacedFilter
from levelhead.layers.smoothing_curriculum import SmoothingCurriculum
from levelhead.types import CannotCompose

KERNELS = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()


class Fixed(PacedFilter):
    def predicted(self, x: torch.Tensor) -> torch.Tensor:
        return x


def filled(**options: object) -> Fixed:
    layer = Fixed(4, **options).double()
    layer.become(KERNELS, known="these")
    return layer


def test_each_channel_goes_through_its_own_kernel_and_no_other() -> None:
    layer, x = filled(), torch.randn(2, 4, 6, 5, dtype=torch.float64)
    y = layer(x)
    assert y.shape == x.shape
    for c in range(4):
        assert_close(y[:, c], F.conv2d(x[:, c : c + 1], KERNELS[c : c + 1], padding=1)[:, 0])
    changed = x.clone()
    changed[:, 2] += 1
    assert torch.equal((layer(changed) - y).abs().amax((0, 2, 3)) > 0, torch.tensor([False, False, True, False]))
    assert_close(layer(3 * x - changed), 3 * y - layer(changed))  # linear


def test_the_gradient_goes_to_the_input_alone_through_the_flipped_kernel() -> None:
    layer, x = filled(), torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    layer(x).backward(g)
    assert x.grad is not None
    assert_close(x.grad, F.conv2d(g, KERNELS.flip(-1, -2), padding=1, groups=4))
    assert not list(layer.parameters())
    assert layer.kernel.grad is None


def test_zeros_darken_borders_and_replicated_pixels_do_not() -> None:
    ones = torch.ones(1, 4, 5, 5)
    for padding, border in (("zero", 0.726), ("replicate", 1.0)):
        layer = Fixed(4, padding=padding)
        layer.become(gaussian_kernels(torch.ones(4)), 1.0)
        y = layer(ones)
        assert_close(y[..., 1:-1, 1:-1], ones[..., 1:-1, 1:-1])
        assert float(y[0, 0, 0, 2]) == pytest.approx(border, abs=1e-3)


def test_the_identity_costs_nothing_and_is_exact() -> None:
    layer, x = Fixed(4), torch.randn(2, 4, 5, 5)
    assert layer(x) is x
    assert torch.equal(layer.filtered(x, layer.kernel), x)
    layer.become(KERNELS, 1)
    assert layer(x) is not x
    layer.become(identity_kernels(4, 3), 2)
    assert torch.equal(layer(x), x)
    layer.become(identity_kernels(4, 3), 3, idle=True)
    assert layer(x) is x


def test_kernels_are_written_into_their_buffer_and_stored_only_when_asked() -> None:
    for stored in (False, True):
        layer = Fixed(4, stored=stored)
        place = layer.kernel.data_ptr()
        layer.become(KERNELS, 1)
        assert layer.kernel.data_ptr() == place
        assert list(layer.state_dict()) == (["kernel"] if stored else [])


def test_loaded_kernels_are_used_and_what_was_known_is_forgotten() -> None:
    source, target = (Fixed(4, stored=True) for _ in range(2))
    source.become(KERNELS, 1)
    nn.ModuleDict({"a": target}).load_state_dict({"a.kernel": source.kernel})
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(target(x), source(x))
    assert target.known is None
    narrow = SmoothingCurriculum(4, sigma0=1.0, factor=0.5, every=1, size=3, padding="zero", stored=True)
    narrow.load_state_dict(source.state_dict())
    narrow.pace(Pace(0, 0, 0, 0))  # it would have had nothing to do
    assert_close(narrow.kernel, gaussian_kernels(torch.ones(4)).float())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="size wants an odd number"):
        Fixed(4, 4)
    with pytest.raises(ValueError, match="padding must be one of"):
        Fixed(4, padding="same")
    with pytest.raises(CannotCompose, match="Put that surgery before"):
        filled()(torch.zeros(1, 8, 5, 5, dtype=torch.float64))
    with pytest.raises(TypeError, match="must define predicted"):
        PacedFilter(4).eval()(torch.zeros(1, 4, 5, 5))
