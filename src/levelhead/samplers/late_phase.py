"""Late-phase weights: near the end a few parameters are split into copies, which are averaged when all is done."""

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from levelhead.declared import KeepsStatistics
from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Point, Predictor, WeightSamples
from levelhead.samplers._around import Around
from levelhead.samplers._gradient import GradientState
from levelhead.samplers._visits import gradient_state
from levelhead.samplers.sgd import SGD
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, Reference, Scalar

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, KeepsStatistics)
CHOICES = ("auto", "norms", "head", "all")


@dataclass(frozen=True)
class LatePhase(Around):
    """From `begin` on, K copies phi_k of some parameters beside shared theta; in the end phi = 1/K sum_k phi_k.

    Each copy has its own batches, optimiser moments and running statistics: step i trains theta and phi_k, k = i mod K.
    The price is that of the inner run, in training and, when averaged, at prediction. The paper updates theta once from
    the K copies' summed gradients; here each of them moves it in turn.

    inner        the gradient sampler.
    num_members  K; 10 in the paper.
    begin        share of the steps before the split (the paper: 120 of 200 epochs).
    noise        spread of the copies at first, as a share of each tensor's root mean square: ours, the paper scales it
                 otherwise. At 0 their batches alone part them.
    parameters   "norms" scales and shifts of norms; "head"; "all"; "auto": "norms" where there are any, else "head".
    average      False: the copies stay apart, as a mixture of K predictions.

    Raises CannotCompose around samplers that wrap others, ValueError where the network has no such parameters.
    von Oswald et al., arXiv 2007.12927.
    """

    reference: ClassVar = Reference(
        "von Oswald, Kobayashi, Sacramento, Meulemans, Henning & Grewe",
        2021,
        arxiv="2007.12927",
        title="Neural networks with late-phase weights",
    )
    inner: Sampler[Any] = field(default_factory=lambda: SGD(epochs=20))
    num_members: int = 10
    begin: float = 0.6
    noise: float = 0.1
    parameters: str = "auto"
    average: bool = True

    def __post_init__(self) -> None:
        if self.num_members < 1:
            raise ValueError(f"LatePhase: num_members must be at least 1, got {self.num_members}")
        if not 0 <= self.begin < 1:
            raise ValueError(f"LatePhase: begin must be in [0, 1), got {self.begin}")
        if self.noise < 0:
            raise ValueError(f"LatePhase: noise must not be negative, got {self.noise}")
        if self.parameters not in CHOICES:
            raise ValueError(f"LatePhase: parameters must be one of {CHOICES}, got {self.parameters!r}")

    def init(self, network: Network, task: Task, run: Run) -> "LatePhaseState":
        """See `Sampler.init`."""
        inner = gradient_state(self.inner.init(network, task, run), "LatePhase")
        return LatePhaseState(inner, late(network, self.parameters))

    def step(self, state: "LatePhaseState", objective: Objective, batch: Batch) -> Scalar:
        """One inner step, on the shared parameters and one copy of the others."""
        first = round(self.begin * state.inner.total)
        if state.inner.done < first:
            return self.inner.step(state.inner, objective, batch)
        if not state.copies:
            state.split(self.num_members, self.noise)
        number = (state.inner.done - first) % self.num_members
        state.take(number)
        loss = self.inner.step(state.inner, objective, batch)
        state.put(number)
        return loss

    def predictor(self, state: "LatePhaseState") -> Predictor:
        """The network at the copies' mean, or their mixture; the last weights where the run never came to the split."""
        if not state.copies:
            return self.inner.predictor(state.inner)
        stacked = {name: torch.stack([own["values"][name] for own in state.copies]) for name in state.names}
        if not self.average:
            return WeightSamples(state.network, stacked)
        network = state.network.copy()
        network.load_state_dict({**network.state_dict(), **{name: t.mean(0) for name, t in stacked.items()}})
        return Point(network)


class LatePhaseState:
    """The inner state, and of each copy its values and its optimiser's moments."""

    def __init__(self, inner: GradientState, parameters: set[str]) -> None:
        self.inner = inner
        self.network: Network = inner.network
        buffers = {name for name, t in self.network.named_buffers() if t.is_floating_point()}
        kept = set(self.network.state_dict())
        self.parameters = sorted(parameters)
        self.names = sorted(parameters | (buffers & kept))
        self.copies: list[dict[str, Any]] = []

    @torch.no_grad()
    def split(self, num_members: int, noise: float) -> None:
        """Copies of what is there now, moved apart by noise from torch's global stream."""
        self.copies = []
        for _ in range(num_members):
            own = self.present()
            for name in self.parameters:
                value = own["values"][name]
                value += noise * value.square().mean().sqrt() * torch.randn_like(value)
            self.copies.append(own)

    def present(self) -> dict[str, Any]:
        """A copy of the values and moments that are in the network and its optimiser."""
        tensors, moments = self.tensors(), self.inner.optimiser.state
        return {
            "values": {name: tensors[name].detach().clone() for name in self.names},
            "moments": {name: copy.deepcopy(moments.get(tensors[name], {})) for name in self.parameters},
        }

    @torch.no_grad()
    def take(self, number: int) -> None:
        """Put a copy into the network and its moments into the optimiser."""
        tensors, own = self.tensors(), self.copies[number]
        for name, value in own["values"].items():
            tensors[name].copy_(value)
        for name, moments in own["moments"].items():
            self.inner.optimiser.state[tensors[name]] = moments

    def put(self, number: int) -> None:
        """Remember what became of a copy."""
        tensors, own = self.tensors(), self.copies[number]
        own["values"] = {name: tensors[name].detach().clone() for name in self.names}
        own["moments"] = {name: self.inner.optimiser.state.get(tensors[name], {}) for name in self.parameters}

    def tensors(self) -> dict[str, Tensor]:
        """The network's parameters and buffers by name."""
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}

    def state_dict(self) -> dict[str, Any]:
        """The inner state, and the copies."""
        return {"inner": self.inner.state_dict(), "copies": self.copies}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.inner.load_state_dict(state["inner"])
        self.copies = state["copies"]


def late(network: Network, choice: str) -> set[str]:
    """Names of the parameters that get copies: of those that learn, the ones that `choice` names."""
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    norms = {
        f"{place}.{name}"
        for place, module in network.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters()  # type: ignore[union-attr]
    } & learning
    if choice == "auto":
        choice = "norms" if norms else "head"
    head = {name for name in learning if name.startswith("head.")}
    found = {"norms": norms, "head": head, "all": learning}[choice]
    if not found:
        raise ValueError(f"LatePhase: the network has no parameters of parameters={choice!r} that learn; use 'all'")
    return found
