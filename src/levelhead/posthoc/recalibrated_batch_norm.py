"""New BatchNorm statistics after training: those of the maps that prediction sees, where training saw others."""

import copy
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.predictor import Ensemble, Point, Predictor, WeightSamples
from levelhead.probe import evaluating
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference

NOTHING = (
    "RecalibratedBatchNorm() found no BatchNorm with running statistics that is not frozen, so there is nothing to "
    "estimate anew. Leave it out, or use a backbone with norm='batch'"
)
NOT_FIRST = (
    "RecalibratedBatchNorm() changes what the networks compute, and {kind} was fitted to what they computed before. "
    "Put it first: posthoc=(RecalibratedBatchNorm(), ...)"
)


@dataclass(frozen=True)
class RecalibratedBatchNorm:
    """mean_c, var_c := plain averages over batches of task.train, on the maps as prediction computes them.

    For networks whose training maps are not those of prediction: frequency dropout or dropout that is off at
    prediction, averaged weights, weights with noise. All else is at rest; layers that draw at prediction draw here,
    one sample a batch, from a fixed stream. Weights stay; every member and every draw of weights gets its own.

    batch_size   rows a batch; clean, shuffled with a fixed seed.
    num_batches  batches, or the whole split where it has fewer.

    Raises CannotCompose where no BatchNorm has statistics, and behind steps that were fitted to the old outputs.

    Averaging after Izmailov et al., arXiv 1803.05407.
    """

    reference: ClassVar = Reference(
        "Izmailov, Podoprikhin, Garipov, Vetrov and Wilson",
        2018,
        arxiv="1803.05407",
        title="Averaging Weights Leads to Wider Optima and Better Generalization",
    )
    batch_size: int = 200
    num_batches: int = 50

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError(f"RecalibratedBatchNorm: batch_size must be at least 2, got {self.batch_size}")
        if self.num_batches < 1:
            raise ValueError(f"RecalibratedBatchNorm: num_batches must be at least 1, got {self.num_batches}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor with new statistics. Reads task.train."""
        if isinstance(predictor, Point):
            network = predictor.network.copy()
            self.renew(network, task.train)
            return Point(network, predictor.noise)
        if isinstance(predictor, WeightSamples):
            return self.each_draw(predictor, task.train)
        if isinstance(predictor, Ensemble):
            return Ensemble([self(member, task) for member in predictor.children_predictors()], predictor.log_weights)
        raise CannotCompose(NOT_FIRST.format(kind=type(predictor).__name__))

    @torch.no_grad()
    def renew(self, network: Network, rows: Split) -> dict[str, nn.Module]:
        """Statistics of these rows, in place; the layers by name."""
        resting = {module for name in network.frozen for module in network.get_submodule(name).modules()}
        norms = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None and module not in resting
        }
        if not norms:
            raise CannotCompose(NOTHING)
        momenta = {name: norm.momentum for name, norm in norms.items()}
        somewhere = next(network.parameters())
        batches = rows.batches(self.batch_size, torch.Generator().manual_seed(0))
        with evaluating(network), seeded(0, network.device):
            for norm in norms.values():
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over batches
                norm.training = True
            for batch in islice(batches, self.num_batches):
                x = batch.to(somewhere.device, somewhere.dtype).x
                network(x, num_samples=1 if network.stochastic else None)
        for name, norm in norms.items():
            norm.momentum = momenta[name]
        return dict(norms)

    def each_draw(self, predictor: WeightSamples, rows: Split) -> WeightSamples:
        """Every draw of the weights with its own statistics."""
        found: dict[str, list[torch.Tensor]] = {}
        for index in range(predictor.num_draws):
            probe = predictor.network.copy()
            drawn = {name: values[index] for name, values in predictor.draws.items()}
            probe.load_state_dict({**probe.state_dict(), **drawn})
            for name, norm in self.renew(probe, rows).items():
                for statistic in ("running_mean", "running_var"):
                    found.setdefault(f"{name}.{statistic}", []).append(norm.get_buffer(statistic))
        draws = {**predictor.draws, **{name: torch.stack(values) for name, values in found.items()}}
        return WeightSamples(
            copy.deepcopy(predictor.network),
            draws,
            predictor.log_weights,
            predictor.noise,
            predictor.num_chains,
            predictor.diagnostics,
        )
