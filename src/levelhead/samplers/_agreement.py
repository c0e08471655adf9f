"""Whether draws of weights agree on the function: R-hat and effective sample size of what they say about some rows."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.metrics.chains import ess, rhat
from levelhead.predictor import WeightSamples
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Batch

MIN_DRAWS = 4  # of a chain, for R-hat
WATCHED = 100  # validation rows


def watched_rows(task: Task, run: Run) -> Batch:
    """The first validation rows, where the fit runs."""
    return next(task.val.ordered(WATCHED)).to(run.device, run.runtime.dtype)


def agreement(mixture: WeightSamples, batch: Batch) -> dict[str, float]:
    """R-hat (largest, median) and effective sample size (least, median) of the log likelihoods of the rows.

    Nothing where a chain has fewer than four draws, or where no draw differs from the others.
    """
    if mixture.num_draws // mixture.num_chains < MIN_DRAWS:
        return {}
    values = log_likelihoods(mixture, batch)
    ratio, size = rhat(values), ess(values)
    found = {
        "rhat": float(ratio.nan_to_num(-math.inf).max()),
        "rhat_median": float(ratio.nanmedian()),
        "ess": float(size.nan_to_num(math.inf).min()),
        "ess_median": float(size.nanmedian()),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


@torch.no_grad()
def log_likelihoods(mixture: WeightSamples, batch: Batch) -> Float[Tensor, "chain draw *batch"]:
    """log p(y | x, w) of each row under each draw: numbers that say the same of two weights with the same function."""
    likelihood = mixture.network.likelihood
    values = torch.stack([-likelihood.member_loss(outputs, batch.y).mean(0) for outputs in mixture.outputs(batch.x)])
    return rearrange(values, "(chain draw) ... -> chain draw ...", chain=mixture.num_chains).cpu()
