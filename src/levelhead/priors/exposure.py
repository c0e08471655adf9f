"""How much of their prior the first layer's weights keep, by direction of the inputs: who is exposed to a shift."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.predictor import Predictor, WeightSamples
from levelhead.priors.inputs import first_layers, moments_seen
from levelhead.priors.term import Prior
from levelhead.tasks.task import Task
from levelhead.training import Regulariser, Run
from levelhead.types import CannotCompose

SAMPLES = (
    "null_space_exposure: {kind} has no draws of its weights. Give what a posterior sampler returns (HMC, SGLD, SWAG); "
    "of a point the weights keep nothing of a prior's variance"
)
GROUPED = "null_space_exposure: {name} is grouped, its neurons see different inputs; use an ungrouped first layer"
FEW = "null_space_exposure: a variance wants at least two draws a chain, got {draws} of {chains} chains"
NO_PRIOR = "null_space_exposure: prior wants a prior of the objectives, such as GaussianPrior(); got {prior}"


class Exposure(NamedTuple):
    """Variances by principal direction of what a first layer sees of the training rows, largest first.

    layer      its name.
    inputs     variance of the inputs along each direction.
    prior      variance of w . u under the prior.
    posterior  variance of w . u over the draws, within chains, as a mean over the layer's neurons.
    """

    layer: str
    inputs: Float[Tensor, " direction"]
    prior: Float[Tensor, " direction"]
    posterior: Float[Tensor, " direction"]

    @property
    def retained(self) -> Float[Tensor, " direction"]:
        """posterior / prior: near 1 where the data say nothing, near 0 where they decide."""
        return self.posterior / self.prior


@torch.no_grad()
def null_space_exposure(predictor: Predictor, task: Task, prior: Regulariser) -> Exposure:
    """The share of the prior's variance that draws of the first layer keep, by direction of its inputs.

    Along a direction in which training inputs do not vary the likelihood says nothing about w . u, and an exact
    posterior keeps all of the prior: a test input that moves that way meets random weights. Under a Gaussian prior of
    independent weights that is noise on every pre-activation; under EmpCov the prior itself is small there.

    predictor  with draws of weights, of one network.
    prior      under which they were drawn.

    Raises CannotCompose for predictors without draws, for what is no prior, and for grouped first layers, ValueError
    for a single draw.
    Izmailov et al., arXiv 2106.11905.
    """
    if not isinstance(predictor, WeightSamples):
        raise CannotCompose(SAMPLES.format(kind=type(predictor).__name__))
    if predictor.num_draws < 2 * predictor.num_chains:
        raise ValueError(FEW.format(draws=predictor.num_draws, chains=predictor.num_chains))
    network, run = predictor.network, Run(0)
    term = prior.start(network, task, run)
    if not isinstance(term, Prior):
        raise CannotCompose(NO_PRIOR.format(prior=prior))
    layer = first_layers(network, author="null_space_exposure")[0]
    if getattr(network.get_submodule(layer.name), "groups", 1) > 1:
        raise CannotCompose(GROUPED.format(name=layer.name))
    inputs, directions = torch.linalg.eigh(moments_seen(network, (layer,), task.train, run)[layer.name].covariance)
    inputs, directions = inputs.flip(0).clamp_min(0), directions.flip(1)
    name = f"{layer.name}.weight"
    drawn = predictor.draws[name].double().flatten(2)
    chains = rearrange(drawn @ directions, "(chain draw) out u -> chain draw out u", chain=predictor.num_chains)
    return Exposure(
        layer.name,
        inputs,
        term.variance(network, name, directions),
        chains.var(1).mean((0, 1)),
    )
