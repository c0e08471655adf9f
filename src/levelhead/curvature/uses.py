"""How a layer uses its parameters: linear, convolution, normalisation and embedding layers, each as `Rows`.

A tensor theta is seen as a block (group, out, in): an output is theta times an input, for each group of channels.
Kernels have their channels innermost, `in` = (height width channel), as networks lay them out. A bias has `in` = 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from levelhead.curvature.rows import Rows


class Use(NamedTuple):
    """How a layer uses one of its tensors.

    rows   (input of the layer, cotangents of its output (k batch ...)) -> rows of the tensor.
    axes   einops pattern from the tensor's own axes to (group out in), and the sizes that it wants.
    """

    rows: Callable[[Tensor, Tensor], Rows]
    axes: str
    sizes: dict[str, int]

    def block(self, theta: Shaped[Tensor, "..."]) -> Shaped[Tensor, "group out in"]:
        """The tensor as a block."""
        return rearrange(theta, self.axes, **self.sizes)

    def tensor(self, block: Shaped[Tensor, "*b group out in"], like: Tensor) -> Shaped[Tensor, "*b flat"]:
        """The block's numbers in the order of the tensor's own axes, flat."""
        order = self.block(torch.arange(like.numel(), device=block.device).reshape(like.shape)).flatten()
        flat = torch.empty_like(block.flatten(-3))
        flat[..., order] = block.flatten(-3)
        return flat


def uses(layer: Any) -> dict[str, Use]:
    """The uses of a layer's own parameters, by their names in it; empty for layers that are not known."""
    if _is(layer, nn.Linear):
        return _owned(layer, {"weight": Use(linear_rows, "out inner -> 1 out inner", {}), "bias": BIAS})
    if _is(layer, nn.Conv2d) or _is(layer, nn.Conv1d):
        return _owned(layer, _convolution(layer))
    if any(_is(layer, kind) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        known = layer._buffers.get("running_mean") is not None
        return _owned(layer, _norm(_batch_normalised(layer), 1)) if known else {}
    if _is(layer, nn.GroupNorm):
        return _owned(layer, _norm(lambda z: F.group_norm(z, layer.num_groups, eps=layer.eps), 1))
    if _is(layer, nn.LayerNorm):
        shape = layer.normalized_shape
        return _owned(layer, _norm(lambda z: F.layer_norm(z, shape, eps=layer.eps), -len(shape)))
    if _is(layer, nn.Embedding) and layer.max_norm is None and not layer.scale_grad_by_freq:
        return _owned(layer, {"weight": Use(_embedding_rows(layer), "inner out -> 1 out inner", {})})
    return {}


def _is(layer: Any, kind: type[nn.Module]) -> bool:
    """Whether a layer computes what that kind computes: subclasses with a forward of their own do not."""
    return isinstance(layer, kind) and type(layer).forward is kind.forward


def _owned(layer: Any, known: dict[str, Use]) -> dict[str, Use]:
    """The uses of those tensors that are parameters: parametrised ones are not."""
    return {name: use for name, use in known.items() if isinstance(layer._parameters.get(name), nn.Parameter)}


def linear_rows(z: Float[Tensor, "batch *place in"], b: Float[Tensor, "k batch *place out"]) -> Rows:
    """Features times weights, at every place (a token, say)."""
    return Rows(z.flatten(1, -2)[None] if z.ndim > 2 else z[None, :, None], _places_last(b)[:, None])


def _bias_rows(z: Tensor, b: Float[Tensor, "k batch *place out"]) -> Rows:
    flat = _places_last(b)
    return Rows(flat.new_ones(1, flat.shape[1], flat.shape[2], 1), flat[:, None])


def _places_last(b: Float[Tensor, "k batch *place out"]) -> Float[Tensor, "k batch r out"]:
    return b.flatten(2, -2) if b.ndim > 3 else b[:, :, None]


BIAS = Use(_bias_rows, "out -> 1 out 1", {})


def _convolution(layer: Any) -> dict[str, Use]:
    groups: int = layer.groups

    def weight_rows(z: Tensor, b: Tensor) -> Rows:
        inputs = rearrange(patches(layer, z), "n r tap (g i) -> g n r (tap i)", g=groups)
        return Rows(inputs, rearrange(b, "k n (g o) ... -> k g n (...) o", g=groups))

    def bias_rows(z: Tensor, b: Tensor) -> Rows:
        return _bias_rows(z, rearrange(b, "k n o ... -> k n (...) o"))

    sites = "h w" if layer.weight.ndim == 4 else "w"
    return {
        "weight": Use(weight_rows, f"(g o) i {sites} -> g o ({sites} i)", {"g": groups}),
        "bias": Use(bias_rows, "out -> 1 out 1", {}),
    }


def patches(layer: Any, z: Float[Tensor, "batch channel *site"]) -> Float[Tensor, "batch r tap channel"]:
    """What every output pixel of a convolution is made of, channels innermost."""
    size, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    z = F.pad(z, layer._reversed_padding_repeated_twice, mode=mode)
    if z.ndim == 3:
        z = rearrange(z, "n c w -> n c 1 w")
        size, stride, dilation = (1, *size), (1, *stride), (1, *dilation)
    z = rearrange(z, "n c h w -> n h w c")  # as networks lay pixels out, so that a row of taps is one piece of memory
    for axis, (k, s, d) in enumerate(zip(size, stride, dilation, strict=True), start=1):
        z = z.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    return rearrange(z, "n y x c p q -> n (y x) (p q) c")


def _batch_normalised(layer: Any) -> Callable[[Tensor], Tensor]:
    def normalised(z: Tensor) -> Tensor:
        return F.batch_norm(z, layer.running_mean, layer.running_var, eps=layer.eps)

    return normalised


def _norm(normalised: Callable[[Tensor], Tensor], axis: int) -> dict[str, Use]:
    """A scale and a shift along `axis`, or along all axes from a negative one on; rows are summed over places.

    The blocks are then exact: their `in` is 1.
    """

    def summed(b: Float[Tensor, "k batch ..."]) -> Rows:
        if axis > 0:
            b = b.flatten(3).sum(-1) if b.ndim > 3 else b
        else:
            b = b.flatten(axis).flatten(2, -2).sum(2) if b.ndim > 2 - axis else b.flatten(axis)
        return Rows(b.new_ones(1, b.shape[1], 1, 1), b[:, None, :, None])

    pattern = "out -> 1 out 1" if axis >= -1 else "... -> 1 (...) 1"
    return {
        "weight": Use(lambda z, b: summed(b * normalised(z)), pattern, {}),
        "bias": Use(lambda z, b: summed(b), pattern, {}),
    }


def _embedding_rows(layer: Any) -> Callable[[Tensor, Tensor], Rows]:
    def rows(z: Tensor, b: Float[Tensor, "k batch *place out"]) -> Rows:
        hot = F.one_hot(z.flatten(1) if z.ndim > 1 else z[:, None], layer.num_embeddings).to(b)
        if layer.padding_idx is not None:
            hot[..., layer.padding_idx] = 0
        return Rows(hot[None], _places_last(b)[:, None])

    return rows
