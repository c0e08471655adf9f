"""What a Laplace posterior will take, said before any of it is allocated."""

import math
from typing import NamedTuple

from torch import Tensor

from levelhead.curvature.capture import passing
from levelhead.curvature.fit_network import few_rows
from levelhead.curvature.selection import Selection
from levelhead.network import Network
from levelhead.types import CannotCompose

MOST_ROWS, MOST_BYTES = 100, 2**29  # of a pass: beyond them nothing gets faster
ADVICE = {
    "full": "structure='kronecker', 'diagonal' or 'low_rank', or a subnetwork of fewer parameters",
    "low_rank": "a smaller rank, structure='kronecker' or 'diagonal'",
    "kronecker": "structure='diagonal', or patterns of names that leave the widest layers out",
    "diagonal": "patterns of names that leave layers out, or subset='head'",
}


class Memory(NamedTuple):
    """Bytes.

    kept     of the posterior itself, for as long as it lives.
    fitting  of the sums and decompositions at their peak, the posterior included.
    row      of each row in a pass.
    """

    parameters: int
    kept: int
    fitting: int
    row: int

    def rows(self, limit: float, *, structure: str) -> int:
        """How many rows may pass at a time for the peak to stay below `limit` bytes.

        Raises CannotCompose where not even one may, with what it would take and what to write instead.
        """
        rows = int((limit - self.fitting) // self.row)
        if rows < 1:
            enough = math.ceil((self.fitting + self.row) * 100 / 2**30) / 100
            raise CannotCompose(
                f"Laplace: structure={structure!r} over {self.parameters:,} parameters wants {said(self.fitting)} for "
                f"its sums and {said(self.row)} a row, and the limit is {said(limit)}. Write {ADVICE[structure]}; or "
                f"memory={enough} and more, in GiB, if the machine has it"
            )
        return min(rows, MOST_ROWS, max(1, MOST_BYTES // self.row))

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters: {said(self.kept)} kept, {said(self.fitting)} while fitting, "
            f"{said(self.row)} a row"
        )


def said(size: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def estimate(network: Network, selection: Selection, structure: str, *, rank: int, num_rows: int) -> Memory:
    """From one example through the network, for a fit on `num_rows`; nothing of the posterior's size is made."""
    size, columns = selection.size, network.num_outputs
    item = next(network.parameters()).element_size()
    if structure == "full" and few_rows(selection, num_rows, network):
        structure, rank = "low_rank", num_rows * columns
    kept, fitting = _factors(selection, structure, rank)
    widest, returned = 0, 0
    seen: list[int] = []
    hooks = [
        module.register_forward_hook(lambda m, args, output: seen.append(_numbers(output)))
        for module in network.modules()
        if not list(module.children())
    ]
    try:
        with passing(network, selection.watches, differentiable=False) as run:
            like = next(network.parameters())
            gone = run(network.signature.example(1).to(like))
            returned = sum(call.size.numel() for call in gone.calls)
            one = gone.outputs.new_ones(1, *gone.outputs.shape)
            for watch, rows in gone.back(one):
                inputs, cotangents = rows.inputs.numel(), rows.cotangents.numel()
                widest = max(widest, 3 * inputs + columns * 2 * (cotangents + watch.place.size))
    finally:
        for hook in hooks:
            hook.remove()
    dense = 2 * columns * size if structure in ("full", "low_rank") else 0
    return Memory(size, kept, fitting, int(item * (2 * sum(seen) + 1.25 * columns * returned + widest + dense)))


def _numbers(output: object) -> int:
    return output.numel() if isinstance(output, Tensor) else 0


def _factors(selection: Selection, structure: str, rank: int) -> tuple[int, int]:
    """Bytes kept, and at the peak of a fit, in float64."""
    size = selection.size
    if structure == "diagonal":
        return 8 * size, 16 * size
    if structure == "full":
        return 8 * size**2, 32 * size**2
    if structure == "low_rank":
        return 8 * size * rank, 24 * size * (rank + 10)
    blocks = [watch.block for watch in selection.watches]
    factors = [8 * group * (out**2 + ins**2) for group, out, ins in blocks]
    return sum(factors), 2 * sum(factors) + 2 * max(factors)
