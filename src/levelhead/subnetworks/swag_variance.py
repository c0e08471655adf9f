"""The parameters that vary most along a path of SGD around the trained weights."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.network import Network
from levelhead.predictor import Point, Predictor
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import MIN_VARIANCE, SWAG, SWAGState
from levelhead.subnetworks._rule import Rule
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime, train


@dataclass(frozen=True)
class SWAGVariance(Rule):
    """score = mean_t(theta_td^2) - mean_t(theta_td)^2 over the ends of the epochs of `path`, started at theta*.

    Of all sets of k parameters, the one with the largest sum of variances leaves a posterior with independent
    parameters nearest in Wasserstein distance: W_2^2 = the sum of the variances left out. SWAG's variances are defined
    where curvature says nothing, as for a dead unit or a saturated class, and were the most consistent of the rules.

    path  the sampler that walks, with a constant learning rate (the authors' code: 256 epochs of batch 1024).

    Reads task.train. Other fields as in every rule.

    Daxberger et al., arXiv 2010.14689; Maddox et al., arXiv 1902.02476.
    """

    path: SGD = field(
        default_factory=lambda: SGD(epochs=40, lr=0.01, momentum=0.9, weight_decay=3e-4, schedule="constant")
    )

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        walk = _Walk(SWAG(inner=self.path, collect=1.0, rank=0, num_draws=0))
        runtime = Runtime(device=str(network.device), dtype=next(network.parameters()).dtype)
        run = Run(int(torch.randint(2**62, ())), runtime)
        with torch.enable_grad():
            train(network.copy(), task, (), walk, run)
        return walk.variance(network)


class _Walk:
    """A sampler that is SWAG, but leaves its moments instead of draws."""

    def __init__(self, swag: SWAG) -> None:
        self.swag = swag
        self.epochs, self.batch_size = swag.epochs, swag.batch_size
        self.init, self.step = swag.init, swag.step
        self.state: SWAGState | None = None

    def predictor(self, state: SWAGState) -> Predictor:
        """The last weights; what matters stays in `state`."""
        self.state = state
        return Point(state.network)

    def variance(self, network: Network) -> Float[Tensor, " parameter"]:
        """Of every parameter; none where it does not move."""
        assert self.state is not None, "trained"
        mean, square = self.state.mean, self.state.square
        return torch.cat(
            [
                (square[name] - mean[name].square()).clamp_min(MIN_VARIANCE).flatten()
                if name in mean
                else torch.zeros_like(parameter).flatten()
                for name, parameter in network.named_parameters()
            ]
        )
