"""Hamiltonian Monte Carlo: draws of the exact posterior, by trajectories through the energy of the whole data."""

import math
from dataclasses import dataclass
from typing import ClassVar

from levelhead.forward import Objective
from levelhead.network import Network
from levelhead.predictor import Predictor
from levelhead.samplers._chains import ChainsState
from levelhead.samplers._pure import insist_on_a_function
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch, Reference, Scalar


@dataclass(frozen=True)
class HMC:
    """Draws from exp(-U), U(w) = (N objective(w) + |w|^2 / (2 prior_scale^2)) / T, by leapfrog trajectories.

    Each iteration draws a momentum r ~ N(0, I), follows w' = push(r), r' = -pull(dU/dw) for `trajectory`, and accepts
    the end with probability min(1, exp(-change of U + |r|^2 / 2)); a rejected state counts again. Energy differences
    are summed in float64, likelihood, prior and momentum apart; one that is not a number is rejected. Coordinates are
    those in which the prior has variance 1 (w = scale v for the Gaussian prior, correlated for `emp_cov_prior`), so
    lengths are in the prior's standard deviations and stiff priors cost nothing.

    An epoch is one leapfrog step of every chain: one gradient of the whole training split each. Chains share their step
    size and start from the network as it is, the others from its numbers in another order, tensor by tensor. The
    predictor's `diagnostics` say whether to trust it: acceptance, divergences, R-hat and effective sample size.

    epochs             leapfrog steps of each chain, the burn-in included.
    chains             run side by side.
    prior_scale        of the prior N(0, prior_scale^2) of the weights that no prior among the objectives speaks of (and
                       whose layer does not decline decay); None: these have a flat prior, and lengths are in units of
                       weights. The same prior under SGD is weight_decay 1 / (N prior_scale^2). 0.45 is variance 1/5.
    temperature        T, 1 is Bayes' rule; it tempers likelihood and prior alike.
    trajectory         pi / 2 is a quarter of the prior's period: the paper's pi prior_scale / 2, in weights.
    jitter             lengths are drawn within this share of `trajectory`, lest a period of the posterior divide it.
    step_size          where its adaptation starts; with target_acceptance=None it stays.
    target_acceptance  mean acceptance that the step size is adapted to during the burn-in, by dual averaging.
    burn_in            share of the epochs before the first draw; its trajectories grow from one step to full length.
    num_draws          of each chain, kept for prediction: evenly spread over the iterations after the burn-in.

    Raises CannotCompose where a network is no function of its weights and a row: BatchNorm in training, dropout, drawn
    weights; and for tasks that augment. Objectives that draw (VAT, random starts) leave no energy to conserve.

    Neal 2011; Izmailov et al., arXiv 2104.14421.
    """

    reference: ClassVar = Reference(
        "Izmailov, Vikram, Hoffman & Wilson",
        2021,
        arxiv="2104.14421",
        title="What Are Bayesian Neural Network Posteriors Really Like?",
    )
    epochs: int = 20_000
    chains: int = 3
    prior_scale: float | None = 0.45
    temperature: float = 1.0
    trajectory: float = math.pi / 2
    jitter: float = 0.2
    step_size: float = 0.01
    target_acceptance: float | None = 0.8
    burn_in: float = 0.3
    num_draws: int = 100

    def __post_init__(self) -> None:
        for name, value in (
            ("prior_scale", self.prior_scale),
            ("temperature", self.temperature),
            ("trajectory", self.trajectory),
            ("step_size", self.step_size),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"HMC: {name} must be positive, got {value}")
        for name, count in (("chains", self.chains), ("num_draws", self.num_draws)):
            if count < 1:
                raise ValueError(f"HMC: {name} must be at least 1, got {count}")
        for name, share in (("jitter", self.jitter), ("burn_in", self.burn_in)):
            if not 0 <= share < 1:
                raise ValueError(f"HMC: {name} must be in [0, 1), got {share}")
        if self.target_acceptance is not None and not 0 < self.target_acceptance < 1:
            raise ValueError(f"HMC: target_acceptance must be in (0, 1), or None; got {self.target_acceptance}")
        if self.epochs < 0:
            raise ValueError(f"HMC: epochs must not be negative, got {self.epochs}")

    @property
    def batch_size(self) -> None:
        """The full batch."""
        return

    def init(self, network: Network, task: Task, run: Run) -> ChainsState:
        """See `Sampler.init`."""
        insist_on_a_function(network, task, "HMC")
        return ChainsState(self, network, task, run)

    def step(self, state: ChainsState, objective: Objective, batch: Batch) -> Scalar:
        """One leapfrog step of every chain; at the end of a trajectory, accept or reject.

        Returns the mean objective of the states last accepted.
        """
        return state.step(objective, batch)

    def predictor(self, state: ChainsState) -> Predictor:
        """The mixture over the draws of all chains, with their diagnostics."""
        return state.predictor()
