"""The gradients of single examples in one tensor of parameters, as sums of outer products that need not be built."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """G_kn = sum_r b_knr a_nr' for columns k of cotangents and examples n; r are the places where the tensor is used.

    inputs      a: what the tensor is multiplied with, a group of channels at a time.
    cotangents  b: what came back from the outputs.
    """

    inputs: Float[Tensor, "group batch place in"]
    cotangents: Float[Tensor, "k group batch place out"]

    def gradients(
        self, left: Tensor | None = None, right: Tensor | None = None
    ) -> Float[Tensor, "k batch group out in"]:
        """left' G right of every column and example; each factor is multiplied in where that is cheapest.

        left (group, out, out) and right (group, in, in) default to the identity.
        """
        a, b = self.inputs, self.cotangents
        places, (columns, out), ins = a.shape[2], (b.shape[0], b.shape[-1]), a.shape[-1]
        early_left, early_right = places < ins, places < columns * out
        if left is not None and early_left:
            b = torch.einsum("k g n r o, g o p -> k g n r p", b, left)
        if right is not None and early_right:
            a = torch.einsum("g n r i, g i j -> g n r j", a, right)
        found = torch.einsum("k g n r o, g n r i -> k n g o i", b, a)
        if right is not None and not early_right:
            found = torch.einsum("k n g o i, g i j -> k n g o j", found, right)
        if left is not None and not early_left:
            found = torch.einsum("k n g o i, g o p -> k n g p i", found, left)
        return found

    def rotated(self, left: Tensor, right: Tensor) -> "Rows":
        """The rows of left' G right."""
        return Rows(
            torch.einsum("g n r i, g i j -> g n r j", self.inputs, right),
            torch.einsum("k g n r o, g o p -> k g n r p", self.cotangents, left),
        )

    def squares(self) -> Float[Tensor, "group out in"]:
        """sum_kn G_kn^2, entry by entry; a tensor used once an example wants no G."""
        if self.inputs.shape[2] == 1:
            weights = self.cotangents.square().sum((0, 3))
            return torch.einsum("g n o, g n r i -> g o i", weights, self.inputs.square())
        return sum_of_squares(self)

    def selected(self, entries: Int[Tensor, " entry"]) -> Float[Tensor, "k batch entry"]:
        """Some entries of G alone, by their places in (group out in)."""
        (groups, _, _, ins), out = self.inputs.shape, self.cotangents.shape[-1]
        if len(entries) * 8 > groups * out * ins:  # gathering places would copy more than G holds
            return self.gradients().flatten(2)[..., entries]
        group, o, i = entries // (out * ins), entries // ins % out, entries % ins
        b = torch.stack([self.cotangents[:, g, :, :, c] for g, c in zip(group.tolist(), o.tolist(), strict=True)], -1)
        a = torch.stack([self.inputs[g, :, :, c] for g, c in zip(group.tolist(), i.tolist(), strict=True)], -1)
        return torch.einsum("k n r e, n r e -> k n e", b, a)


def sum_of_squares(rows: Rows) -> Float[Tensor, "group out in"]:
    """sum_kn G_kn^2, a column of cotangents at a time."""
    total: Tensor | None = None
    for column in rows.cotangents.split(1):
        found = Rows(rows.inputs, column).gradients().square().sum((0, 1))
        total = found if total is None else total + found
    assert total is not None, "there is a column"
    return total


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of a tensor that is used several times: one sum over all its places."""
    if len(parts) == 1:
        return parts[0]
    return Rows(torch.cat([p.inputs for p in parts], dim=2), torch.cat([p.cotangents for p in parts], dim=3))
