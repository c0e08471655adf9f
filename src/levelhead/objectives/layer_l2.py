"""An L2 penalty with its own coefficient for each group of parameters, as hyper-parameter searches want it."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor

from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.priors.term import undecayed
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose, Reference, Scalar


@dataclass(frozen=True)
class LayerL2:
    """loss + sum_g coefficients_g / N |theta_g|^2, N the number of training rows, |.|^2 a sum over parameters.

    In these units a coefficient means the same prior, Normal(0, 1 / (2 coefficient)), however many rows there are: a
    refit on more rows needs no new value. Set the sampler's weight_decay to 0 beside it; under SGD, weight_decay w is a
    coefficient of w N / 2 on everything.

    groups        patterns of parameters' names ("features.hidden1.*", "head.weight", "*"); the first that matches a
                  parameter takes it. Parameters whose layer wants no decay (members' vectors) are in no group.
    coefficients  one a group, >= 0; a path such as `regularisers.layer_l2.coefficients.0` leads to each.

    Raises ValueError where the two differ in length, CannotCompose where a group matches no parameter.

    The units are those of Wenzel et al., arXiv 2006.13570.
    """

    reference: ClassVar[Reference] = Reference(
        "Wenzel, Snoek, Tran and Jenatton",
        2020,
        arxiv="2006.13570",
        title="Hyperparameter Ensembles for Robustness and Uncertainty Quantification",
    )
    groups: tuple[str, ...] = ("*",)
    coefficients: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.coefficients) or not self.groups:
            raise ValueError(f"LayerL2: wants one coefficient a group, got {self.groups} and {self.coefficients}")
        if min(self.coefficients) < 0:
            raise ValueError(f"LayerL2: coefficients must not be negative, got {self.coefficients}")

    def start(self, network: Network, task: Task, run: Run) -> "Penalty":
        """The term of one fit."""
        group_of = self.grouped(network)
        for group, pattern in enumerate(self.groups):
            if group not in group_of.values():
                raise CannotCompose(
                    f"LayerL2: no parameter is left for the group {pattern!r}; write patterns of these names: "
                    f"{', '.join(name for name, _ in network.named_parameters())}"
                )
        return Penalty(self, group_of, len(task.train))

    def grouped(self, network: Network) -> dict[str, int]:
        """The group of each parameter that has one, by name."""
        without = undecayed(network)
        found = {}
        for name, parameter in network.named_parameters():
            group = next((g for g, pattern in enumerate(self.groups) if fnmatchcase(name, pattern)), None)
            if group is not None and parameter not in without:
                found[name] = group
        return found


class Penalty:
    """The penalty at work."""

    def __init__(self, spec: LayerL2, group_of: dict[str, int], num_rows: int) -> None:
        self.spec, self.group_of, self.num_rows = spec, group_of, num_rows

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective and the penalty."""
        return inner(forward) + self.of(forward.network)

    def of(self, network: Network) -> Tensor:
        """The penalty of a network's parameters as they are."""
        coefficients = self.spec.coefficients
        parts = [
            coefficients[self.group_of[name]] * parameter.square().sum()
            for name, parameter in network.named_parameters()
            if name in self.group_of
        ]
        return sum(parts[1:], parts[0]) / self.num_rows

    def end_epoch(self, network: Network) -> None:
        """Nothing happens between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
