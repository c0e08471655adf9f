"""What samplers share that keep the weights of several moments of one run."""

from typing import Any

import torch
from torch import Tensor

from levelhead.network import Network
from levelhead.predictor import WeightSamples
from levelhead.samplers._gradient import GradientState
from levelhead.types import CannotCompose


class VisitsState:
    """The inner state, the steps done, and the weights and statistics of the moments kept so far."""

    def __init__(self, inner: GradientState) -> None:
        self.inner = inner
        self.network: Network = inner.network
        self.done = 0
        self.kept: list[dict[str, Tensor]] = []

    def keep(self, at_most: int) -> None:
        """Keep the present weights; of more than `at_most`, the last ones."""
        present = self.network.state_dict()
        self.kept.append({name: t.detach().clone() for name, t in present.items() if t.is_floating_point()})
        del self.kept[:-at_most]

    def predictor(self) -> WeightSamples:
        """The equal mixture over the moments kept."""
        stacked = {name: torch.stack([moment[name] for moment in self.kept]) for name in self.kept[0]}
        return WeightSamples(self.network, stacked)

    def state_dict(self) -> dict[str, Any]:
        """The inner state, the place, the moments."""
        return {"inner": self.inner.state_dict(), "done": self.done, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.inner.load_state_dict(state["inner"])
        self.done, self.kept = state["done"], state["kept"]


def gradient_state(inner: Any, asker: str) -> GradientState:
    """The state of a gradient sampler. Raises CannotCompose for another kind."""
    if not isinstance(inner, GradientState):
        raise CannotCompose(
            f"{asker} sets the learning rate of one gradient sampler, and its inner one is a wrapper; write "
            f"{asker}(inner=SGD()), and put other wrappers around other inners"
        )
    return inner
