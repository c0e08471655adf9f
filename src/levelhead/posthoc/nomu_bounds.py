"""Bounds of a chosen width: c, and the readout if wanted, fitted on held-out rows."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.nomu.bounds import coverage_factor, logspace, mean_width_factor, nll_factor, search
from levelhead.nomu.paper import PAPER
from levelhead.nomu.readout import Readout
from levelhead.nomu.reread import Reread, raw_parts
from levelhead.predictor import Predictor
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class NomuBounds:
    """sigma = c phi(r) with c chosen on task.calibration, so that f +- sigma are the bounds that are wanted.

    by      "nll": Gaussian negative log likelihood, noise of the data included where the network says one.
            "coverage": a share `level` of the rows inside f +- sigma.
            "mean_width": mean(2 sigma) = `budget` in standardised target units, without a look at the targets.
    tune_readout  choose l_min and l_max too, by NLL on a grid of num_l_min x num_l_max x num_c values: l_min from 5e-3
            to 0.8, l_max from 0.8 to 10, c from 0.02 to 100, as for the paper's UCI tables. Only with by="nll".

    Means stay, and so does the noise of the data. Several members share c; the fit uses their mean. Raises
    CannotCompose for predictors without a side network, ValueError for a setting without effect.

    Heiss et al., arXiv 2102.13640.
    """

    reference: ClassVar = PAPER
    wants_targets: ClassVar = True
    by: Literal["nll", "coverage", "mean_width"] = "nll"
    level: float = 0.95
    budget: float = 0.5
    tune_readout: bool = False
    num_l_min: int = 100
    num_l_max: int = 80
    num_c: int = 200

    def __post_init__(self) -> None:
        if self.by not in ("nll", "coverage", "mean_width"):
            raise ValueError(f"NomuBounds: by must be 'nll', 'coverage' or 'mean_width', got {self.by!r}")
        if self.tune_readout and self.by != "nll":
            raise ValueError(f"NomuBounds: tune_readout is by NLL; write by='nll' beside it, not {self.by!r}")
        if not 0 < self.level <= 1 or not self.budget > 0:
            raise ValueError(
                f"NomuBounds: wants level in (0, 1] and a positive budget, got {self.level}, {self.budget}"
            )
        if min(self.num_l_min, self.num_l_max, self.num_c) < 1:
            raise ValueError("NomuBounds: a grid wants at least one value of l_min, l_max and c")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, read out anew."""
        rows = self.rows(predictor, task)
        return Reread(predictor, self.chosen(*rows, _readout_of(predictor)), task.calibration.digest)

    @torch.no_grad()
    def rows(
        self, predictor: Predictor, task: Task
    ) -> tuple[Float[Tensor, "row target"], Float[Tensor, "row target"], Float[Tensor, "row target"]]:
        """Raw uncertainty, error and noise variance of the calibration rows, standardised, members averaged."""
        like = next(predictor.parameters())
        raws, residuals, noises = [], [], []
        for batch in task.calibration.ordered(500):
            batch = batch.to(like.device, like.dtype)
            belief, raw, scale = raw_parts(predictor, batch.x)
            said = 0.0 if belief.model_variances is None else belief.model_variances
            raws.append((raw * belief.weights).sum(0))
            residuals.append((batch.y - belief.mean) / scale)
            noises.append(((belief.variances - said) * belief.weights).sum(0) / scale.square())
        return torch.cat(raws), torch.cat(residuals), torch.cat(noises)

    def chosen(
        self,
        raw: Float[Tensor, "row target"],
        residual: Float[Tensor, "row target"],
        noise: Float[Tensor, "row target"],
        readout: Readout,
    ) -> Readout:
        """The readout for what the rows say."""
        plain = replace(readout, c=1.0)
        std = plain(raw)
        if self.by == "mean_width":
            return replace(plain, c=mean_width_factor(std, budget=self.budget))
        if self.by == "coverage":
            return replace(plain, c=coverage_factor(residual, std, level=self.level))
        if not self.tune_readout and not bool(noise.any()):
            return replace(plain, c=nll_factor(residual, std))
        l_min = logspace(5e-3, 0.8, self.num_l_min) if self.tune_readout else (readout.l_min,)
        l_max = logspace(0.8, 10.0, self.num_l_max) if self.tune_readout else (readout.l_max,)
        c = logspace(0.02, 100.0, self.num_c)
        return search(raw, residual, noise, plain, l_min=l_min, l_max=l_max, c=c).readout


def _readout_of(predictor: Predictor) -> Readout:
    """The readout that a predictor has now."""
    own = getattr(predictor, "readout", None)
    if isinstance(own, Readout):
        return own
    (network,) = predictor.networks()
    readout = network.likelihood.readout  # type: ignore[attr-defined]  # raw_parts has looked
    assert isinstance(readout, Readout)
    return readout
