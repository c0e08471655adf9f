"""Layers whose weights are a function of each row's hyper-parameters, and the exact L2 penalty of these weights."""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from levelhead.declared import Conditional, Hint
from levelhead.layers.fast_weights import CONVOLUTIONS, INITS, TRANSPOSED, drawn, sizes
from levelhead.layers.hyper_ranges import Tunable
from levelhead.network import Network
from levelhead.types import Scalar

VECTORS = ("r", "s", "u", "v")


class ConditionalWeights(Conditional):
    """y = s_k o W(r_k o x) + e1 o v_k o D(u_k o x) + b_k + e2 o b'_k for a row of member k; (e1, e2) = e(condition).

    So the row has the weight W o (s_k r_k') + [D o (v_k u_k')] o e1, e1 along the outputs, which is never built. With
    all vectors 1 it is the layer of self-tuning networks, with D = 0 and b' = 0 that of BatchEnsemble.

    module            a linear layer or convolution, taken over with its weight W; its bias becomes every member's. D is
                      drawn as torch draws such a layer.
    num_hyper         size of the condition.
    vectors           False: none, all are 1. tied: u = r and v = s.
    init, init_scale  of the vectors, as in FastWeights.
    embedding_scale   standard deviation of e's weights: small, but not zero beside b' = 0, which would never move.
    hidden            None: e is linear, without bias. Else a layer of that many tanh stands before it.
    kernel, bias_of   places, among the hyper-parameters, of the L2 coefficients of weight and bias; None: none.
    whole             the penalty is on what a row's weights are; False: on W and D without their vectors.
    drawn_bias        b' is drawn as torch draws biases; False: zero.
    fast_lr           factor on the learning rate of vectors and biases.

    Inside `linearised` it gives the tangent of its outputs along e as well, for forward-mode derivatives.
    """

    along_response: bool = False  # set by `linearised`

    bias: Float[nn.Parameter, "member out"] | None
    bias_response: Float[nn.Parameter, "member out"] | None

    def __init__(
        self,
        module: nn.Module,
        num_members: int,
        num_hyper: int,
        *,
        vectors: bool = True,
        tied: bool = True,
        init: str = "normal",
        init_scale: float = 0.75,
        embedding_scale: float = 1e-4,
        hidden: int | None = None,
        kernel: int | None = None,
        bias_of: int | None = None,
        whole: bool = False,
        drawn_bias: bool = False,
        fast_lr: float = 0.5,
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"ConditionalWeights: init must be one of {', '.join(map(repr, INITS))}; got {init!r}")
        self.num_members = num_members
        self.kernel, self.bias_of, self.whole = kernel, bias_of, whole
        channels, self.num_out, self.channel_axis = sizes(module)
        shapes = {"r": channels, "s": self.num_out, "u": channels, "v": self.num_out}
        for name, size in shapes.items():
            own = vectors and not (tied and name in "uv")
            self.register_parameter(name, nn.Parameter(drawn(init, init_scale, num_members, size)) if own else None)
        bias = module.bias
        if isinstance(bias, nn.Parameter):
            rows = bias.detach().expand(num_members, -1).clone()
            self.bias = nn.Parameter(rows, requires_grad=bias.requires_grad)
            self.bias_response = nn.Parameter(torch.zeros_like(rows))
            module.register_parameter("bias", None)
        else:
            self.register_parameter("bias", None)
            self.register_parameter("bias_response", None)
        self.module = module
        self.response = fresh(module)
        if drawn_bias and self.bias_response is not None:
            bound = 1 / math.sqrt(self.response.weight[0].numel())  # type: ignore[index]
            nn.init.uniform_(self.bias_response, -bound, bound)
        self.embedding = embedding(num_hyper, self.num_out * (1 if self.bias is None else 2), hidden, embedding_scale)
        decayed = kernel is None
        self.own_hints = dict.fromkeys((*VECTORS, "bias", "bias_response"), Hint(lr=fast_lr, decay=False))
        self.own_hints |= dict.fromkeys(("module.weight", "response.weight"), Hint(decay=decayed))
        self.own_hints |= {f"embedding.{name}": Hint(decay=False) for name, _ in self.embedding.named_parameters()}

    @property
    def hints(self) -> Mapping[str, Hint]:  # type: ignore[override]
        """Slower vectors and biases; weight decay on nothing that has an L2 coefficient of its own."""
        return self.own_hints

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """All members' outputs, member-major as the rows came."""
        z = self.by_member(x)
        e1, e2 = self.embedded(self.condition_rows(len(x)))
        if self.u is None:  # tied, or no vectors: both weights see the same rows
            y, moved = self.both(self.times(z, self.r))
            out = self.times(self.unfolded(self.responded(y, moved, e1)), self.s)
        else:
            y = self.times(self.unfolded(self.module(self.times(z, self.r))), self.s)
            moved = self.times(self.unfolded(self.response(self.times(z, self.u))), self.v)
            out = self.responded(y, moved, e1)
        if self.bias is None or e2 is None:
            return out
        assert self.bias_response is not None, "a layer with a bias has its response too"
        b = torch.addcmul(self.bias[:, None], self.bias_response[:, None], self.unfolded(e2))
        return out + self.across(b.flatten(0, 1), out.ndim).to(out.dtype)

    def both(self, x: Float[Tensor, "rows ..."]) -> tuple[Float[Tensor, "rows ..."], Float[Tensor, "rows ..."]]:
        """W x and D x; torch's own convolutions in one pass, which reads x once."""
        module = self.module
        if type(module) not in CONVOLUTIONS or module.groups != 1:
            return module(x), self.response(x)
        weight = torch.cat([module.weight, self.response.weight])  # type: ignore[list-item]
        first, second = module._conv_forward(x, weight, None).chunk(2, dim=1)  # type: ignore[operator]
        return first, second

    def responded(
        self, y: Float[Tensor, "rows ..."], moved: Float[Tensor, "rows ..."], e1: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows ..."]:
        """y + e1 o moved."""
        return torch.addcmul(y, moved, self.across(e1, y.ndim).to(y.dtype))

    def times(
        self, z: Float[Tensor, "member rest ..."], vectors: Float[Tensor, "member channel"] | None
    ) -> Float[Tensor, "rows ..."]:
        """The members' rows, each times its member's vector along the channel."""
        scaled = z if vectors is None else z * self.along(vectors, z.ndim).to(z.dtype)
        return scaled.flatten(0, 1)

    def unfolded(self, rows: Float[Tensor, "rows ..."]) -> Float[Tensor, "member rest ..."]:
        """Rows with their member axis."""
        return rows.unflatten(0, (self.num_members, -1))

    def embedded(
        self, condition: Float[Tensor, "*row hyper"]
    ) -> tuple[Float[Tensor, "*row out"], Float[Tensor, "*row out"] | None]:
        """e1 and e2, always in the parameters' own precision."""
        with torch.autocast(condition.device.type, enabled=False):
            e: Tensor = self.embedding(condition)
        if self.along_response:
            e = from_zero(e)
        return (e, None) if self.bias is None else (e[..., : self.num_out], e[..., self.num_out :])

    def along(self, vectors: Float[Tensor, "member channel"], ndim: int) -> Float[Tensor, "member 1 ..."]:
        """The members' vectors, shaped to multiply (member, rest, ...) of `ndim` axes along the channel."""
        ones = (1,) * (ndim - 3)
        shape = (1, *ones, vectors.shape[1]) if self.channel_axis == -1 else (1, vectors.shape[1], *ones)
        return vectors.reshape(len(vectors), *shape)

    def across(self, rows: Float[Tensor, "rows out"], ndim: int) -> Float[Tensor, "rows ..."]:
        """A vector for each row, shaped to multiply (rows, ...) of `ndim` axes along the channel."""
        ones = (1,) * (ndim - 2)
        return rows.reshape(len(rows), *((*ones, self.num_out) if self.channel_axis == -1 else (self.num_out, *ones)))

    def penalty(
        self, condition: Float[Tensor, "member row hyper"], settings: Float[Tensor, "member row hyper"]
    ) -> Scalar:
        """mean_{k,i} [ nu_ki |W_ki|^2 + nu'_ki |b_ki|^2 ] of the rows' own weights and biases, in closed form.

        With A = W o (s r'), B = D o (v u') and nu-weighted moments m_p = mean_i nu e1^p it is the mean over members of
        sum_o m_0 |A_o|^2 + 2 m_1o <A_o, B_o> + m_2o |B_o|^2.
        """
        total = condition.new_zeros(())
        e1, e2 = self.embedded(condition)
        if self.kernel is not None:
            m0, m1, m2 = moments(settings[..., self.kernel], e1)
            W, D = self.module.weight, self.response.weight
            a, b = self.vectors_of("r", "s"), self.vectors_of("u", "v")
            rows = m0 * self.products(W, W, a, a) + 2 * m1 * self.products(W, D, a, b)
            total = total + (rows + m2 * self.products(D, D, b, b)).sum(1).mean()
        if self.bias_of is not None and self.bias is not None and e2 is not None and self.bias_response is not None:
            m0, m1, m2 = moments(settings[..., self.bias_of], e2)
            rows = m0 * self.bias.square() + 2 * m1 * self.bias * self.bias_response + m2 * self.bias_response.square()
            total = total + rows.sum(1).mean()
        return total

    def vectors_of(self, inner: str, outer: str) -> tuple[Tensor, Tensor] | None:
        """The vectors that count in the penalty of a weight; None: all are 1."""
        if not self.whole or self.r is None:
            return None
        tied = {"u": "r", "v": "s"}
        first, second = (tied.get(n, n) if self.u is None else n for n in (inner, outer))
        return getattr(self, first), getattr(self, second)

    def products(
        self, one: Any, other: Any, a: tuple[Tensor, Tensor] | None, b: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, "member out"]:
        """<A_o, B_o> of every member and output, for A and B from two weights and their vectors."""
        if a is None and not isinstance(self.module, TRANSPOSED):
            alone = (one * other).flatten(1).sum(1)  # as an einsum it is a batch of tiny products, four times slower
            return alone.expand(self.num_members, -1)
        taps = (one * other).flatten(2).sum(2) if one.ndim > 2 else one * other
        groups: int = getattr(self.module, "groups", 1)
        if isinstance(self.module, TRANSPOSED):  # (in, out / groups)
            grouped = rearrange(taps, "(group i) o -> group o i", group=groups)
        else:  # (out, in / groups)
            grouped = rearrange(taps, "(group o) i -> group o i", group=groups)
        if a is None or b is None:
            return repeat(grouped.sum(2), "group o -> k (group o)", k=self.num_members)
        inner = rearrange(a[0] * b[0], "k (group i) -> k group i", group=groups)
        rows = rearrange(torch.einsum("goi,kgi->kgo", grouped, inner), "k group o -> k (group o)")
        return rows * a[1] * b[1]

    def __getattr__(self, name: str) -> Any:
        """What is not here is the module's: its weight, stride, sizes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


@contextmanager
def linearised(network: Network) -> Iterator[None]:
    """In here the weights respond to first order: outputs are those at e = 0, with their tangent along e."""
    with ExitStack() as stack:
        stack.enter_context(forward_ad.dual_level())
        for layer in network.layers(ConditionalWeights):
            stack.callback(setattr, layer, "along_response", False)
            layer.along_response = True  # type: ignore[assignment]
        yield


def from_zero(e: Float[Tensor, "*row out"]) -> Float[Tensor, "*row out"]:
    """Zeros whose tangent is e."""
    with warnings.catch_warnings():  # the first of these loads scripts of torch's own that it calls deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        return forward_ad.make_dual(torch.zeros_like(e), e)


def tuned_l2(network: Network, coordinates: Float[Tensor, "member row hyper"]) -> Scalar:
    """The sum of all layers' penalties, each row with its own coefficients; to be divided by the rows of train."""
    assert isinstance(network.hyper, Tunable), "the caller has looked"
    settings = network.hyper.values(coordinates).detach()
    parts = [layer.penalty(coordinates, settings) for layer in network.layers(ConditionalWeights)]  # type: ignore[operator]
    return torch.stack(parts).sum() if parts else coordinates.new_zeros(())


def moments(
    nu: Float[Tensor, "member row"], e: Float[Tensor, "member row out"]
) -> tuple[Float[Tensor, "member 1"], Float[Tensor, "member out"], Float[Tensor, "member out"]]:
    """Means over rows of nu, nu e and nu e^2."""
    weights = nu[..., None]
    return weights.mean(1), (weights * e).mean(1), (weights * e.square()).mean(1)


def fresh(module: nn.Module) -> nn.Module:
    """A layer like this one, with weights ~ Uniform(-1/sqrt(fan_in), 1/sqrt(fan_in)) of its own."""
    made = copy.deepcopy(module)
    nn.init.kaiming_uniform_(made.weight, a=math.sqrt(5))  # type: ignore[arg-type]
    return made.requires_grad_(True)


def embedding(num_hyper: int, size: int, hidden: int | None, scale: float) -> nn.Module:
    """e: condition -> scales of the response."""
    last = nn.Linear(num_hyper if hidden is None else hidden, size, bias=False)
    nn.init.normal_(last.weight, std=scale)
    return last if hidden is None else nn.Sequential(nn.Linear(num_hyper, hidden), nn.Tanh(), last)
