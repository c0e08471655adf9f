"""SGHMC: SGLD whose velocity persists, so that it walks further between refreshes."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.samplers._gradient import Precision, Schedule
from levelhead.samplers._langevin import Preconditioner, Walk
from levelhead.types import Reference


@dataclass(frozen=True)
class SGHMC(Walk):
    """m <- momentum m - lr g + (2 (1 - momentum) lr T / N)^(1/2) xi;  w <- w + m,  xi ~ N(0, I).

    g is the gradient of -log p(w | data) / N on a minibatch. momentum=0 is SGLD, step by step. At the same lr the path
    moves 1 / (1 - momentum) times as fast. Other fields as in SGLD; the papers' step is lr / N.

    momentum  1 - friction, in [0, 1). The code of the cyclical paper calls the friction alpha.

    Chen, Fox & Guestrin, arXiv 1402.4102; settings in the spirit of Izmailov et al., arXiv 2104.14421.
    """

    reference: ClassVar = Reference(
        "Chen, Fox & Guestrin", 2014, arxiv="1402.4102", title="Stochastic gradient Hamiltonian Monte Carlo"
    )
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
