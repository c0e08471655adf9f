"""Layers that are a matrix for each axis of a map: y = rows x columns^T, as large products in the map's own layout.

The matrices are made in double precision at first sight of a size, and belong to no state: nothing to learn or save.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.downsampling import LowPass, Pair

CACHED = 256  # sizes kept in memory, for all layers together


class Arrays(NamedTuple):
    """What `Products` are made of, in double precision."""

    rows: Any
    columns: Any
    rest: tuple[Any, Any] | None = None
    ripple: Any = None


class Products(NamedTuple):
    """Matrices of a map's two axes: y = rows x columns^T - rest[0] x rest[1]^T.

    With `ripple` (g, v), rows and columns have a last row more, which measures what lies at both axes' highest
    frequency: y = the part without them + ripple * the corner.
    """

    rows: Float[Tensor, "_ h"]
    columns: Float[Tensor, "_ w"]
    rest: tuple[Tensor, Tensor] | None = None
    ripple: Float[Tensor, "g v"] | None = None


class ByMatrices(LowPass):
    """A layer that says which matrices a map of some size wants."""

    _seen: tuple[Any, Products] | None = None

    def products(self, sizes: Pair) -> Arrays:
        """The matrices of a map of this height and width: a function of the size and of the layer's settings."""
        raise TypeError(f"{type(self).__name__} must define products")

    def made(self, x: Float[Tensor, "batch channel h w"]) -> Products:
        """The matrices for a map, in its dtype and on its device.

        The last ones are an attribute: a compiler looks at attributes, not into caches.
        """
        key = (x.shape[2], x.shape[3], x.dtype, x.device)
        if self._seen is not None and self._seen[0] == key:
            return self._seen[1]
        by = cached(self, *key)
        if type(by.rows) is Tensor:  # an export's stand-in must not outlive it
            self._seen = (key, by)
        return by


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types here
def cached(layer: ByMatrices, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Products:
    """A layer's matrices; layers of the same class and settings share them."""
    key = (type(layer), layer.extra_repr(), height, width, dtype, device)
    if key not in _MADE:
        arrays = layer.products((height, width))

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

        with torch.inference_mode(False):
            by = Products(
                tensor(arrays.rows),
                tensor(arrays.columns),
                rest=None if arrays.rest is None else (tensor(arrays.rest[0]), tensor(arrays.rest[1])),
                ripple=None if arrays.ripple is None else tensor(arrays.ripple),
            )
        if type(by.rows) is not Tensor:
            return by
        if len(_MADE) > CACHED:
            _MADE.clear()
        _MADE[key] = by
    return _MADE[key]


_MADE: dict[Any, Products] = {}


def rippled(
    x: Float[Tensor, "batch channel h w"],
    rows: Float[Tensor, "_ h"],
    columns: Float[Tensor, "_ w"],
    ripple: Float[Tensor, "g v"],
) -> Float[Tensor, "batch channel g v"]:
    """rows x columns^T without its last row and column, whose corner times `ripple` is added."""
    g, v = ripple.shape
    if not _innermost(x):
        y, corner = _corner(between(x, rows, columns), g, v, 2)
        return torch.addcmul(y, corner, ripple)
    y, corner = _corner(_channels_last(x, rows, columns), g, v, 1)
    return torch.addcmul(y, corner, ripple[..., None]).permute(0, 3, 1, 2)


def _corner(z: Tensor, g: int, v: int, axis: int) -> tuple[Tensor, Tensor]:
    """Split, not sliced: the gradient of a split is one concatenation, that of a slice a map of zeros."""
    top, bottom = z.split([g, 1], axis)
    return top.split([v, 1], axis + 1)[0], bottom.split([v, 1], axis + 1)[1]


def between(
    x: Float[Tensor, "batch channel h w"], rows: Float[Tensor, "g h"], columns: Float[Tensor, "v w"]
) -> Float[Tensor, "batch channel g v"]:
    """rows x columns^T of every channel, as large products in the map's own layout."""
    if _innermost(x):
        return _channels_last(x, rows, columns).permute(0, 3, 1, 2)
    batch, channels, height, _ = x.shape
    across = F.linear(x, columns).reshape(batch * channels, height, len(columns))
    return torch.bmm(rows.expand(batch * channels, -1, -1), across).view(batch, channels, len(rows), len(columns))


def _channels_last(x: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "batch g v channel"]:
    batch, channels, height, width = x.shape
    z = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    z = torch.bmm(rows.expand(batch, -1, -1), z).view(batch * len(rows), width, channels)
    z = torch.bmm(columns.expand(batch * len(rows), -1, -1), z)
    return z.view(batch, len(rows), len(columns), channels)


def _innermost(x: Tensor) -> bool:
    """Whether the channel is innermost: by the strides, since a contiguity test is not allowed under vmap."""
    return x.shape[1] > 1 and x.stride(1) == 1
