"""What a set of chosen parameters consists of, and how much of the predictive variance it explains."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from levelhead.curvature.parameter_sums import contributions
from levelhead.curvature.places import alive, places
from levelhead.network import Network
from levelhead.tasks.split import Split


class Chosen(NamedTuple):
    """A report on a subnetwork.

    num, total    chosen parameters, of how many.
    by_tensor     name -> (chosen, size), of every tensor.
    dead          share of all parameters whose Jacobian is zero on every row.
    chosen_dead   share of the chosen ones.
    explained     share of the rows' predictive variance under a diagonal Laplace posterior over all parameters.
    """

    num: int
    total: int
    by_tensor: dict[str, tuple[int, int]]
    dead: float
    chosen_dead: float
    explained: float

    def __str__(self) -> str:
        lines = [
            f"{self.num} of {self.total} parameters, {self.explained:.1%} of the predictive variance; "
            f"{self.dead:.1%} of all and {self.chosen_dead:.1%} of these are dead"
        ]
        lines += [f"  {name}: {num} of {size} ({num / size:.1%})" for name, (num, size) in self.by_tensor.items()]
        return "\n".join(lines)


def report(chosen: Int[Tensor, " selected"], network: Network, rows: Split, *, prior_precision: float = 1.0) -> Chosen:
    """What the chosen places of a network are, judged on some rows (task.train)."""
    known = places(network)
    moved = alive(network, rows)
    return Chosen(
        num=len(chosen),
        total=known[-1].stop,
        by_tensor={p.name: (int(((chosen >= p.start) & (chosen < p.stop)).sum()), p.size) for p in known},
        dead=1 - float(moved.double().mean()),
        chosen_dead=1 - float(moved[chosen].double().mean()),
        explained=explained(chosen, contributions(network, rows, prior_precision)),
    )


def explained(chosen: Int[Tensor, " selected"], variances: Float[Tensor, " parameter"]) -> float:
    """The chosen parameters' share of a sum over all; 0 where all are."""
    return float(variances[chosen].sum() / variances.sum().clamp_min(1e-300))
