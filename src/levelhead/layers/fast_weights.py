"""Members that share a layer's weight and own vectors that scale its inputs and outputs.

Measured on CPU, one thread, forward and backward of a 3x3 convolution over the rows of 4 members x 128 images: with the
vectors folded into four kernels 1.06 to 1.2 times one convolution over all rows, with the vectors multiplied into the
maps 1.3 to 1.8 times. A kernel is folded as long as it is smaller than the map that it reads.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from levelhead.declared import Hint, Membered

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
INITS = ("normal", "sign", "ones")


class FastWeights(Membered):
    """y = sum_q s_qk * module(r_qk * x) + b_k for member k: its weight is W * sum_q s_qk r_qk', W shared.

    r scales inputs and s scales outputs, channel by channel, as in edward2; the BatchEnsemble paper's equation 4 has
    the letters the other way round. The bias is outside the scaling, one a member. The module may be a linear layer, a
    convolution or a transposed one, with any stride, padding, dilation and groups (r counts input channels through all
    groups).

    module      the layer; it is taken over with its weight, and its bias becomes every member's.
    init        of r and s: "normal" Normal(1, init_scale^2), "sign" +1 or -1 at random, "ones".
    rank        number of pairs of vectors a member.
    fast_lr     factor on the learning rate of r, s and b, which have no weight decay: it would draw the members to zero
                together.
    """

    r: Float[nn.Parameter, "rank member channel"]
    s: Float[nn.Parameter, "rank member out"]
    bias: Float[nn.Parameter, "member out"] | None

    def __init__(
        self,
        module: nn.Module,
        num_members: int,
        *,
        init: str = "normal",
        init_scale: float = 0.5,
        rank: int = 1,
        fast_lr: float = 0.5,
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"FastWeights: init must be one of {', '.join(map(repr, INITS))}; got {init!r}")
        channels, out, self.channel_axis = sizes(module)
        self.num_members = num_members
        self.r = nn.Parameter(drawn(init, init_scale, rank, num_members, channels))
        self.s = nn.Parameter(drawn(init, init_scale, rank, num_members, out))
        bias = module.bias
        if isinstance(bias, nn.Parameter):
            rows = bias.detach().expand(num_members, -1).clone()
            self.bias = nn.Parameter(rows, requires_grad=bias.requires_grad)
            module.register_parameter("bias", None)
        else:
            self.register_parameter("bias", None)
        self.module = module  # last: what is not here by now would be taken for the module's
        self.own_hints = dict.fromkeys(("r", "s", "bias"), Hint(lr=fast_lr, decay=False))

    @property
    def hints(self) -> Mapping[str, Hint]:  # type: ignore[override]
        """Slower vectors and biases, without weight decay."""
        return self.own_hints

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """All members' outputs, member-major as the rows came."""
        z = self.by_member(x)
        return self.folded(z) if self.folds(z) else self.scaled(z)

    def folds(self, z: Float[Tensor, "member rest ..."]) -> bool:
        """Whether making each member's kernel is cheaper than scaling its maps. Only torch's own convolutions are
        folded: other classes may do more with their weight than convolve."""
        if type(self.module) not in (*CONVOLUTIONS, *TRANSPOSED):
            return False
        return self.module.weight.numel() <= len(self.r) * math.prod(z.shape[1:])  # type: ignore[operator]

    def scaled(self, z: Float[Tensor, "member rest ..."]) -> Float[Tensor, "rows ..."]:
        """The vectors on inputs and outputs; one call of the module for each of the `rank` pairs."""
        out: Tensor | None = None if self.bias is None else self.along(self.bias, z.ndim)
        for r, s in zip(self.r, self.s, strict=True):
            rows = rearrange(z * self.along(r, z.ndim).to(z.dtype), "member rest ... -> (member rest) ...")
            y = rearrange(self.module(rows), "(member rest) ... -> member rest ...", member=self.num_members)
            scale = self.along(s, y.ndim).to(y.dtype)
            out = y * scale if out is None else torch.addcmul(out.to(y.dtype), y, scale)
        assert out is not None, "rank is at least 1"
        return rearrange(out, "member rest ... -> (member rest) ...")

    def folded(self, z: Float[Tensor, "member rest ..."]) -> Float[Tensor, "rows ..."]:
        """The vectors in the kernels; one call of the module for each member."""
        weights = self.weights().unbind(0)
        biases = [None] * len(weights) if self.bias is None else self.bias.unbind(0)
        outputs = []
        for rows, weight, bias in zip(z.unbind(0), weights, biases, strict=True):
            own: dict[str, Any] = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            outputs.append(functional_call(self.module, own, (rows,)))
        return torch.cat(outputs)

    def weights(self) -> Float[Tensor, "member ..."]:
        """W * sum_q s_qk r_qk' for every member, in the layout of the module's weight."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        groups: int = getattr(self.module, "groups", 1)
        r = rearrange(self.r, "rank member (group i) -> rank member group i", group=groups)
        s = rearrange(self.s, "rank member (group o) -> rank member group o", group=groups)
        if isinstance(self.module, TRANSPOSED):  # (in, out / groups, *tap)
            scale = rearrange(torch.einsum("qkgi,qkgo->kgio", r, s), "member group i o -> member (group i) o")
        else:  # (out, in / groups, *tap)
            scale = rearrange(torch.einsum("qkgi,qkgo->kgoi", r, s), "member group o i -> member (group o) i")
        return weight * scale.reshape(*scale.shape, *(1,) * (weight.ndim - 2))

    def along(self, vectors: Float[Tensor, "member channel"], ndim: int) -> Float[Tensor, "member 1 ..."]:
        """The members' vectors, shaped to multiply (member, rest, ...) of `ndim` axes along the channel."""
        ones = (1,) * (ndim - 3)
        shape = (1, *ones, vectors.shape[1]) if self.channel_axis == -1 else (1, vectors.shape[1], *ones)
        return vectors.reshape(len(vectors), *shape)

    def __getattr__(self, name: str) -> Any:
        """What is not here is the module's: its weight, stride, sizes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def sizes(module: nn.Module) -> tuple[int, int, int]:
    """Channels in and out of a layer, and their axis. Raises TypeError for other modules."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, -1
    if isinstance(module, CONVOLUTIONS + TRANSPOSED):
        return module.in_channels, module.out_channels, 1
    raise TypeError(f"members' weights: wants a linear layer or a convolution, got {type(module).__name__}")


def drawn(init: str, scale: float, *shape: int) -> Tensor:
    """Members' vectors: all "ones", +1 or -1 at random ("sign"), or Normal(1, scale^2)."""
    if init == "ones":
        return torch.ones(shape)
    if init == "sign":
        return 2.0 * torch.randint(2, shape).to(torch.get_default_dtype()) - 1.0
    return 1.0 + scale * torch.randn(shape)
