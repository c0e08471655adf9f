"""SGLD: gradient descent on minibatches with as much noise as makes its path a sample of the posterior."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.samplers._gradient import Precision, Schedule
from levelhead.samplers._langevin import Preconditioner, Walk
from levelhead.types import Reference


@dataclass(frozen=True)
class SGLD(Walk):
    """w <- w - lr g + (2 lr T / N)^(1/2) xi,  xi ~ N(0, I),  g the gradient of -log p(w | data) / N on a minibatch.

    Samples p(w | data)^(1 / T) as lr goes to 0; at a finite rate the minibatch's own noise adds to it. The posterior is
    that of the recipe: N times its objective (priors among the objectives included), and the prior below.

    lr              in the units of SGD's: of the mean loss. The papers step on the summed log joint: their step is
                    lr / N (twice that in Welling & Teh, who halve it).
    prior_scale     of the prior N(0, prior_scale^2) of the weights that no prior among the objectives speaks of (and
                    whose layer does not decline decay); None: these have a flat prior. The same prior under SGD is
                    weight_decay 1 / (N prior_scale^2). 0.45 is variance 1/5.
    temperature     T, 1 is Bayes' rule; it tempers likelihood and prior alike. 0 is gradient descent.
    burn_in         share of the steps before the first draw is kept.
    num_draws       weights kept for prediction, evenly spread over the steps after the burn-in.
    preconditioner  "rmsprop": steps and noise are scaled by the running size of the gradients (without the correction
                    term of its drift, as in arXiv 2104.14421); "none".

    Welling & Teh 2011; settings in the spirit of Izmailov et al., arXiv 2104.14421.
    """

    reference: ClassVar = Reference(
        "Welling & Teh", 2011, title="Bayesian learning via stochastic gradient Langevin dynamics"
    )
    momentum: ClassVar = 0.0
    epochs: int = 100
    batch_size: int = 80
    lr: float = 0.04
    prior_scale: float | None = 0.45
    temperature: float = 1.0
    burn_in: float = 0.2
    num_draws: int = 40
    schedule: Schedule = "constant"
    preconditioner: Preconditioner = "none"
    precision: Precision = "float32"
