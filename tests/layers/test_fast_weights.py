"""Both ways of computing members against explicit weights W * s r', layer by layer and member by member."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.layers.fast_weights import FastWeights

K = 3
LAYERS = [
    (nn.Linear(5, 4), (2, 5)),
    (nn.Linear(5, 4, bias=False), (2, 3, 5)),
    (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 9)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, 3, dilation=2, bias=False), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular"), (2, 4, 7, 6)),
    (nn.Conv2d(4, 8, 3, groups=4, padding="same", padding_mode="reflect"), (2, 4, 7, 6)),
    (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1), (2, 4, 5, 4)),
    (nn.ConvTranspose3d(2, 3, 2, bias=False), (2, 2, 3, 3, 3)),
]


def fast(layer: nn.Module, *, rank: int = 1, members: int = K, **options: object) -> FastWeights:
    made = FastWeights(copy.deepcopy(layer), members, rank=rank, **options).double()  # type: ignore[arg-type]
    if made.bias is not None:
        nn.init.normal_(made.bias)
    return made


def explicit(layer: FastWeights, k: int) -> nn.Module:
    """Member k as a plain layer, its weight filled in entry by entry."""
    plain = copy.deepcopy(layer.module)
    transposed = "Transpose" in type(plain).__name__
    groups = getattr(plain, "groups", 1)
    weight = plain.weight.detach().clone()
    for a, b in itertools.product(*map(range, weight.shape[:2])):
        if transposed:
            i, o = a, a // (weight.shape[0] // groups) * weight.shape[1] + b
        else:
            i, o = a // (weight.shape[0] // groups) * weight.shape[1] + b, a
        weight[a, b] *= sum(layer.s[q, k, o].item() * layer.r[q, k, i].item() for q in range(len(layer.r)))
    plain.weight.data = weight
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias[k].detach())
    return plain


def by_loop(layer: FastWeights, x: Tensor) -> Tensor:
    return torch.cat([explicit(layer, k)(rows) for k, rows in enumerate(x.chunk(layer.num_members))])


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("layer, shape", LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_members_are_layers_with_explicit_weights(layer: nn.Module, shape: tuple[int, ...], rank: int) -> None:
    made = fast(layer, rank=rank)
    x = torch.randn(K * shape[0], *shape[1:], dtype=torch.float64)
    expected = by_loop(made, x)
    assert_close(made(x), expected)
    assert_close(made.scaled(made.by_member(x)), expected)
    assert_close(made.folded(made.by_member(x)), expected)
    for k in range(K):
        assert_close(made.weights()[k], explicit(made, k).weight)


def test_a_kernel_is_folded_where_it_is_smaller_than_the_map() -> None:
    made = fast(nn.Conv2d(4, 4, 3))
    assert made.folds(torch.empty(K, 2, 4, 9, 9))
    assert not made.folds(torch.empty(K, 1, 4, 4, 4))
    assert not fast(nn.Linear(2, 2)).folds(torch.empty(K, 100, 2))


def test_the_shared_weight_gets_the_scaled_sum_of_the_members_gradients() -> None:
    made = fast(LAYERS[3][0])
    x = torch.randn(K * 2, 4, 7, 6, dtype=torch.float64)
    made(x).square().sum().backward()
    expected = torch.zeros_like(made.module.weight)
    for k, rows in enumerate(x.chunk(K)):
        plain = explicit(made, k)
        plain(rows).square().sum().backward()
        expected += plain.weight.grad * torch.outer(made.s[0, k], made.r[0, k]).detach()[:, :, None, None]
    assert_close(made.module.weight.grad, expected)


@pytest.mark.parametrize("layer, shape", [LAYERS[0], LAYERS[3]], ids=["linear", "conv"])
def test_members_do_not_touch_one_another(layer: nn.Module, shape: tuple[int, ...]) -> None:
    made = fast(layer)
    x = torch.randn(K * shape[0], *shape[1:], dtype=torch.float64)
    before = made(x).detach()
    made(x).chunk(K)[0].sum().backward()
    for own in (made.r.grad[0], made.s.grad[0], made.bias.grad):
        assert own[0].abs().sum() > 0
        assert (own[1:] == 0).all()
    with torch.no_grad():
        for own in (made.r[0], made.s[0], made.bias):
            own[1] += 1
    changed = [not torch.equal(a, b) for a, b in zip(made(x).chunk(K), before.chunk(K), strict=True)]
    assert changed == [False, True, False]


def test_scaling_r_up_and_s_down_changes_nothing() -> None:
    made = fast(LAYERS[3][0])
    x = torch.randn(K * 2, 4, 7, 6, dtype=torch.float64)
    before = made(x)
    with torch.no_grad():
        made.r *= -4.0
        made.s /= -4.0
    assert_close(made(x), before)


def test_ones_are_the_layer_itself() -> None:
    layer = nn.Linear(5, 4)
    made = FastWeights(copy.deepcopy(layer), K, init="ones")
    x = torch.randn(2, 5)
    assert_close(made(x.repeat(K, 1)), layer(x).repeat(K, 1), rtol=0, atol=1e-6)


def test_inits() -> None:
    big = nn.Linear(2000, 1000).requires_grad_(False)
    sign = FastWeights(copy.deepcopy(big), K, init="sign").requires_grad_(False)
    assert set(sign.r.unique().tolist()) == {-1.0, 1.0}
    assert float(sign.r.mean()) == pytest.approx(0, abs=0.05)
    assert_close(sign.weights().abs(), big.weight.abs().expand(K, -1, -1))
    normal = FastWeights(copy.deepcopy(big), K, init_scale=0.5).requires_grad_(False)
    assert float(normal.s.mean()) == pytest.approx(1, abs=0.05)
    assert float(normal.s.std()) == pytest.approx(0.5, abs=0.05)
    moment = normal.weights().square().mean() / big.weight.square().mean()
    assert float(moment) == pytest.approx(1.25**2, rel=0.1)


def test_parameters_hints_and_state() -> None:
    made = FastWeights(nn.Linear(7, 5), 4, fast_lr=0.25)
    assert sum(p.numel() for p in made.parameters()) == 7 * 5 + 4 * (7 + 2 * 5)
    assert made.module.bias is None
    assert {name: tuple(hint) for name, hint in made.hints.items()} == dict.fromkeys(("r", "s", "bias"), (0.25, False))
    other = FastWeights(nn.Linear(7, 5), 4)
    other.load_state_dict(made.state_dict())
    x = torch.randn(8, 7)
    assert torch.equal(other(x), made(x))


def test_frozen_bias_stays_frozen_and_attributes_are_the_layers() -> None:
    layer = nn.Conv2d(2, 3, 3, stride=2)
    layer.bias.requires_grad_(False)
    made = copy.deepcopy(FastWeights(layer, 2))
    assert not made.bias.requires_grad
    assert made.stride == (2, 2)
    assert made.weight is made.module.weight


def test_half_precision_by_autocast() -> None:
    made = FastWeights(nn.Conv2d(4, 4, 3, padding=1), 2)
    x = torch.randn(8, 4, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        folded, scaled = made.folded(made.by_member(x)), made.scaled(made.by_member(x))
    assert folded.dtype == scaled.dtype == torch.bfloat16
    assert_close(folded.float(), made(x), rtol=0.05, atol=0.1)
    assert_close(scaled.float(), made(x), rtol=0.05, atol=0.1)


def test_keeps_channels_last() -> None:
    made = FastWeights(nn.Conv2d(4, 8, 3, padding=1), 2)
    x = torch.randn(8, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    for out in (made.folded(made.by_member(x)), made.scaled(made.by_member(x))):
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="10 rows cannot be shared by 3 members"):
        fast(nn.Linear(5, 4))(torch.randn(10, 5, dtype=torch.float64))
    with pytest.raises(TypeError, match="wants a linear layer or a convolution, got Bilinear"):
        FastWeights(nn.Bilinear(2, 2, 2), 2)
    with pytest.raises(ValueError, match="init must be one of"):
        FastWeights(nn.Linear(2, 2), 2, init="zeros")


def test_a_subclass_is_scaled_not_folded() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, padding=self.padding)

    made = fast(Standardised(4, 4, 3, padding=1))
    x = torch.randn(K * 2, 4, 6, 6, dtype=torch.float64)
    rows = x[:2] * made.r[0, 0][None, :, None, None]
    expected = made.module(rows) * made.s[0, 0][None, :, None, None] + made.bias[0][None, :, None, None]
    assert_close(made(x)[:2], expected)
