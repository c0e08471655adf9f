"""SGHMC: SGLD whose velocity persists, so that it walks further between refreshes."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._gradient import Precision, Schedule
from levelhead.samplers._langevin import LangevinState, Preconditioner, begin, validate_langevin, visited, walk
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Reference, Scalar


@dataclass(frozen=True)
class SGHMC:
    """m <- momentum m - lr g + (2 (1 - momentum) lr T / N)^(1/2) xi;  w <- w + m,  xi ~ N(0, I).

    g is the gradient of -log p(w | data) / N on a minibatch. momentum=0 is SGLD, step by step. At the same lr the path
    moves 1 / (1 - momentum) times as fast. Other fields as in SGLD; the papers' step is lr / N.

    momentum  1 - friction, in [0, 1). The code of the cyclical paper calls the friction alpha.

    Chen, Fox & Guestrin, arXiv 1402.4102; settings in the spirit of Izmailov et al., arXiv 2104.14421.
    """

    reference: ClassVar = Reference(
        "Chen, Fox & Guestrin", 2014, arxiv="1402.4102", title="Stochastic gradient Hamiltonian Monte Carlo"
    )
    clip: ClassVar = None
    warmup_epochs: ClassVar = 0.0
    weight_decay: ClassVar = 0.0
    epochs: int = 100
    batch_size: int = 80
    lr: float = 0.012
    momentum: float = 0.9
    prior_scale: float | None = 0.45
    temperature: float = 1.0
    burn_in: float = 0.2
    num_draws: int = 40
    schedule: Schedule = "constant"
    preconditioner: Preconditioner = "none"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        validate_langevin(self)

    def init(self, network: Network, task: Task, run: Run) -> LangevinState:
        """See `Sampler.init`."""
        return begin(self, network, task, run)

    def step(self, state: LangevinState, objective: Objective, batch: Batch) -> Scalar:
        """One step; keeps the weights where one of the draws is due."""
        return walk(self, state, objective, batch)

    def predictor(self, state: LangevinState) -> Predictor:
        """The mixture over the draws; its diagnostics hold R-hat and effective sample size, as HMC's."""
        return visited(state)
