"""Layers against explicit weights for every row, the penalty against brute force, and the special cases."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.fast_weights import FastWeights

K, B, H = 3, 4, 2
LAYERS = {
    "linear": lambda bias: nn.Linear(6, 4, bias=bias),
    "conv": lambda bias: nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=bias),
    "grouped": lambda bias: nn.Conv2d(6, 4, 3, groups=2, bias=bias),
    "conv1d": lambda bias: nn.Conv1d(6, 4, 3, dilation=2, bias=bias),
    "transposed": lambda bias: nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, bias=bias),
}
SITES = {"linear": (), "conv": (5, 5), "grouped": (5, 5), "conv1d": (7,), "transposed": (3, 3)}
OPTIONS = [
    dict(zip(("bias", "tied", "whole"), flags, strict=True)) for flags in itertools.product([True, False], repeat=3)
]
each_layer = pytest.mark.parametrize("kind", LAYERS)
each_option = pytest.mark.parametrize("option", OPTIONS, ids=str)


def layer(kind: str, *, bias: bool = True, scale: float = 0.5, **options: Any) -> ConditionalWeights:
    """A layer in double precision, all of whose parts matter."""
    torch.manual_seed(0)
    made = ConditionalWeights(LAYERS[kind](bias), K, H, embedding_scale=scale, kernel=0, bias_of=1, **options)
    if made.bias_response is not None:
        nn.init.normal_(made.bias_response)
        nn.init.normal_(made.bias)
    return made.double()


def condition() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(K, B, H, generator=generator, dtype=torch.float64)


def rows_of(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(K * B, 6, *SITES[kind], generator=generator, dtype=torch.float64)


def explicit(made: ConditionalWeights, k: int, row: Tensor, *, vectors: bool = True) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one row, written out: W o (s r') + [D o (v u')] o e1."""
    W, D = made.module.weight, made.response.weight
    e1, e2 = made.embedded(row)
    transposed = isinstance(made.module, nn.ConvTranspose2d)
    groups = getattr(made.module, "groups", 1)

    def outer(out: Tensor, inner: Tensor) -> Tensor:
        """s r' in the layout of the weight, group by group."""
        o, i = rearrange(out, "(g o) -> g o", g=groups), rearrange(inner, "(g i) -> g i", g=groups)
        if transposed:
            scale = (i[:, :, None] * o[:, None, :]).flatten(0, 1)
        else:
            scale = (o[:, :, None] * i[:, None, :]).flatten(0, 1)
        return scale.reshape(*scale.shape, *(1,) * (W.ndim - 2))

    ones_in, ones_out = torch.ones(6, dtype=W.dtype), torch.ones(4, dtype=W.dtype)
    if vectors and made.r is not None:
        r, s = made.r[k], made.s[k]
        u, v = (r, s) if made.u is None else (made.u[k], made.v[k])
    else:
        r, s, u, v = ones_in, ones_out, ones_in, ones_out
    weight = W * outer(s, r) + D * outer(v * e1, u)
    return weight, None if made.bias is None else made.bias[k] + e2 * made.bias_response[k]


def slowly(made: ConditionalWeights, x: Tensor, c: Tensor) -> Tensor:
    """Row by row with its own weight."""
    outputs = []
    for place, row in enumerate(x):
        k, i = divmod(place, B)
        weight, bias = explicit(made, k, c[k, i])
        plain = copy.deepcopy(made.module)
        own = {"weight": weight}
        if bias is not None:
            plain.register_parameter("bias", nn.Parameter(torch.zeros(4, dtype=torch.float64)))
            own["bias"] = bias
        outputs.append(functional_call(plain, own, (row[None],)))
    return torch.cat(outputs)


@each_layer
@each_option
def test_a_layer_equals_explicit_weights_of_every_row(kind, option):
    made = layer(kind, **option)
    made.condition = condition()
    x = rows_of(kind)
    assert_close(made(x), slowly(made, x, condition()))


@each_layer
def test_a_layer_without_vectors_equals_explicit_weights_too(kind):
    made = layer(kind, vectors=False)
    made.condition = condition()
    x = rows_of(kind)
    assert_close(made(x), slowly(made, x, condition()))


def test_tokens_are_rows_of_their_example():
    made = layer("linear")
    made.condition = condition()
    x = torch.randn(K * B, 5, 6, dtype=torch.float64)
    each = torch.stack([slowly(made, x[:, t], condition()) for t in range(5)], 1)
    assert_close(made(x), each)


def test_a_hidden_layer_of_the_embedding_counts():
    made = layer("conv", hidden=7)
    made.condition = condition()
    assert_close(made(rows_of("conv")), slowly(made, rows_of("conv"), condition()))


def test_joint_passes_pair_rows_with_their_draws():
    made = layer("linear")
    made.condition = condition()
    x = rows_of("linear")
    once = made(x)
    blocks = rearrange(torch.stack([x, x], 0), "s (k b) i -> (k s b) i", k=K)
    twice = rearrange(made(blocks), "(k s b) o -> s (k b) o", k=K, s=2)
    assert_close(twice[0], once)
    assert_close(twice[1], once)


def brute_force(made: ConditionalWeights, c: Tensor, nu: Tensor) -> Tensor:
    """The mean over rows of nu |W_row|^2 + nu' |b_row|^2."""
    total = torch.zeros((), dtype=torch.float64)
    for k in range(K):
        for i in range(B):
            weight, bias = explicit(made, k, c[k, i], vectors=made.whole)
            total = total + nu[k, i, 0] * weight.square().sum()
            if bias is not None:
                total = total + nu[k, i, 1] * bias.square().sum()
    return total / (K * B)


@each_layer
@each_option
def test_the_penalty_and_its_gradients_are_those_of_explicit_weights(kind, option):
    made = layer(kind, **option)
    c, nu = condition().requires_grad_(True), 1 + torch.rand(K, B, H, dtype=torch.float64)
    fast, slow = made.penalty(c, nu), brute_force(made, c, nu)
    assert_close(fast, slow, rtol=1e-9, atol=0)
    wanted = [c, *made.parameters()]
    slopes = [torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True) for value in (fast, slow)]
    for one, other in zip(*slopes, strict=True):
        assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_moments_are_joint():
    """nu and e move together over rows: the product of their means is another number."""
    made = layer("linear")
    c = condition()
    nu = 10 ** (4 * c)
    e1, _ = made.embedded(c)
    wrong = nu[..., :1].mean(1) * e1.mean(1)
    assert not torch.allclose(wrong, (nu[..., :1] * e1).mean(1), rtol=0.05)
    assert_close(made.penalty(c, nu), brute_force(made, c, nu))


def test_without_a_response_it_is_batch_ensemble():
    made = layer("conv")
    torch.manual_seed(0)
    twin = FastWeights(copy.deepcopy(made.module), K).double()
    with torch.no_grad():
        made.response.weight.zero_()
        made.bias_response.zero_()
        twin.r.copy_(made.r[None])
        twin.s.copy_(made.s[None])
    twin.bias = nn.Parameter(made.bias.detach().clone())
    made.condition = condition()
    assert_close(made(rows_of("conv")), twin(rows_of("conv")))


@pytest.mark.parametrize("dead", ["response", "embedding"])
def test_without_response_or_embedding_nothing_depends_on_hyper_parameters(dead):
    made = layer("linear")
    with torch.no_grad():
        (made.response.weight if dead == "response" else made.embedding.weight).zero_()
        made.bias_response.zero_()
    c = condition().requires_grad_(True)
    made.condition = c
    out = made(rows_of("linear"))
    assert_close(torch.autograd.grad(out.sum(), c)[0], torch.zeros_like(c))


def test_one_member_without_vectors_is_the_plain_layer_where_the_response_is_dead():
    torch.manual_seed(0)
    plain = nn.Linear(6, 4)
    made = ConditionalWeights(copy.deepcopy(plain), 1, H, vectors=False)
    nn.init.zeros_(made.response.weight)
    made.condition = torch.rand(1, B, H)
    x = torch.randn(B, 6)
    assert_close(made(x), plain(x))


def test_rows_of_a_member_know_nothing_of_others():
    made = layer("linear", tied=False)
    c = condition().requires_grad_(True)
    made.condition = c
    out = made(rows_of("linear"))[B : 2 * B].square().sum()  # member 1
    slopes = torch.autograd.grad(out, [c, made.r, made.s, made.u, made.v, made.bias, made.bias_response])
    for slope in slopes:
        assert not slope[0].any()
        assert not slope[2].any()
        assert slope[1].any()


def test_the_response_starts_small_but_alive():
    torch.manual_seed(0)
    made = ConditionalWeights(nn.Linear(64, 32), K, H)
    made.condition = torch.rand(K, B, H)
    made(torch.randn(K * B, 64)).square().sum().backward()
    assert made.response.weight.grad.any()
    assert made.embedding.weight.grad.any()
    assert made.response.weight.abs().max() <= 1 / math.sqrt(64)
    assert made.embedding.weight.std() < 2e-4


def test_it_is_reached_through_its_network_only():
    with pytest.raises(RuntimeError, match="through its Network"):
        layer("linear")(rows_of("linear"))
