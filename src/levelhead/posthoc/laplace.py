"""The Laplace approximation: a Gaussian posterior around trained weights, from the curvature of the loss at them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from levelhead.curvature.capture import check_uses
from levelhead.curvature.evidence import PRIOR_RANGE, NetworkEvidence, grouped
from levelhead.curvature.fit_head import HEAD_STRUCTURES, HeadFit
from levelhead.curvature.fit_network import KINDS, streamed
from levelhead.curvature.head_laplace import HeadLaplace, stacked
from levelhead.curvature.line_search import minimise
from levelhead.curvature.linked import LINKS, check_link
from levelhead.curvature.memory import Memory, estimate
from levelhead.curvature.network_laplace import NetworkLaplace
from levelhead.curvature.readout import check_likelihood, linear_readout, one_network
from levelhead.curvature.selection import Selection
from levelhead.network import Network
from levelhead.predictor import Point, Predictor
from levelhead.recalibration.prior_precision import tuned_head, tuned_network
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference

__all__ = ["HeadLaplace", "Laplace", "NetworkLaplace"]

Subnetwork = Callable[[Network, Task], Int[Tensor, " selected"]]
STRUCTURES = (*HEAD_STRUCTURES, "low_rank")
PRIORS = ("marginal_likelihood", "calibration")
SCOPES = ("all", "layer")


@dataclass(frozen=True)
class Laplace:
    """p(theta | data) ~ Normal(theta*, P^-1),  P = H / temperature + prior_precision,  H = sum_n J_n' Lambda_n J_n.

    Lambda_n is the curvature of the likelihood in the outputs, J_n their Jacobian, n over task.train; outputs are
    linear in theta around theta*: f | x ~ Normal(f*(x), J P^-1 J'). For the head all of it is in closed form; beyond it
    a pass goes back through the network once an output, and Jacobians are contracted layer by layer.

    subset           "head": the last linear layer, weights and bias. "all": every weight that requires a gradient.
                     Patterns of names, such as ("features.stage3*", "head*"). A subnetwork: a spec of `subnetworks`,
                     (network, task) -> sorted flat places in the order of network.named_parameters().
    structure        "kronecker" (a product a tensor, biases apart), "full", "diagonal", or "low_rank": the `rank`
                     largest eigenpairs of the full matrix. Over single weights no "kronecker".
    kind             Lambda_n: "ggn", the Fisher information; "empirical", at the labels; "mc", at labels drawn.
    prior_precision  a number; "marginal_likelihood": the one with the largest evidence of the training rows, which asks
                     for no held-out rows but often leaves confidence too low; "calibration": the one with the smallest
                     negative log likelihood of the predictions on task.calibration; numbers: the best of these there.
                     A tuned one at an end of its range, 1e-4 or 1e6, found no best inside it.
    prior_scope      "all" weights share a precision, or those of a "layer" (chosen by marginal likelihood alone).
    link             from f to classes. "probit": f_k / sqrt(1 + pi / 8 v_k). "mackay": its form for covariances.
                     "bridge": the Dirichlet of the Laplace bridge. "mc": `num_draws` draws of functions, kept as
                     members; of classes these alone tell epistemic from aleatoric. "weights": the network itself at
                     draws of its weights, where the linear model does not hold: beyond the head accuracy suffers unless
                     the prior is strong. Regression: one Gaussian with variance noise(x) + v(x), of which v(x) is
                     epistemic, or "mc", or "weights".
    memory           GiB that sums and passes may take; rows pass in fitting numbers, and what cannot fit is refused.

    Regression learns its noise with the network; the curvature is the Fisher information of mean and noise together.
    Members that share the head have a posterior each, over it. The pass over task.train is clean and in eval; sums
    are float64. Raises ValueError for combinations that do not exist, and CannotCompose unless the predictor is one
    network whose chosen weights belong to layers that are known, or where memory does not suffice.

    Daxberger et al., arXiv 2106.14806; links after MacKay 1992 and Hobbhahn et al., arXiv 2003.01227.
    """

    reference: ClassVar = Reference(
        "Daxberger et al.", 2021, arxiv="2106.14806", title="Laplace Redux - Effortless Bayesian Deep Learning"
    )
    subset: str | tuple[str, ...] | Subnetwork = "head"
    structure: str = "kronecker"
    kind: str = "ggn"
    prior_precision: float | str | tuple[float, ...] = "marginal_likelihood"
    prior_scope: str = "all"
    link: str = "probit"
    num_draws: int = 100
    rank: int = 50
    temperature: float = 1.0
    memory: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("structure", STRUCTURES), ("kind", KINDS), ("link", LINKS), ("prior_scope", SCOPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"Laplace: {name} must be one of {known}, got {getattr(self, name)!r}")
        patterns = isinstance(self.subset, tuple) and self.subset and all(isinstance(p, str) for p in self.subset)
        if not (patterns or callable(self.subset) or self.subset in ("head", "all")):
            raise ValueError(
                f"Laplace: subset must be 'head', 'all', a tuple of patterns, or a subnetwork; got {self.subset!r}"
            )
        if callable(self.subset) and self.structure == "kronecker":
            raise ValueError(
                "Laplace: structure='kronecker' is of whole tensors, and this subset chooses single weights; write "
                "structure='full', 'diagonal' or 'low_rank'"
            )
        self._check_prior()
        for name in ("num_draws", "rank"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"Laplace: {name} must be a whole number, at least 1, got {count!r}")
        for name in ("temperature", "memory"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Laplace: {name} must be positive, got {getattr(self, name)}")

    def _check_prior(self) -> None:
        prior = self.prior_precision
        if isinstance(prior, str):
            if prior not in PRIORS:
                raise ValueError(
                    f"Laplace: prior_precision must be a number, numbers or one of {PRIORS}, got {prior!r}"
                )
        else:
            numbers: tuple[Any, ...] = prior if isinstance(prior, tuple) else (prior,)
            if not numbers or not all(isinstance(p, float | int) and 0 < p < math.inf for p in numbers):
                raise ValueError(
                    f"Laplace: prior_precision must be positive, a number or a tuple of numbers, or one of {PRIORS}; "
                    f"got {prior!r}"
                )
        if self.prior_scope == "layer" and (prior == "calibration" or isinstance(prior, tuple)):
            raise ValueError(
                "Laplace: prior_scope='layer' is chosen by marginal likelihood; write prior_precision="
                "'marginal_likelihood', or prior_scope='all'"
            )

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor with a posterior. Reads task.train, and task.calibration where it tunes on it."""
        point = one_network(predictor, step="Laplace()")
        check_likelihood(point.network.likelihood, step="Laplace()")
        check_link(point.network.likelihood, self.link)
        if self.subset == "head" and self.structure in HEAD_STRUCTURES:
            return self._over_head(point, task)
        return self._over_network(point, task)

    def estimate_memory(self, network: Network, task: Task) -> Memory:
        """Bytes that a fit and its predictions take, before any is allocated. Not for the head's closed forms."""
        selection, _ = self._selection(network, task)
        return self._estimate(network, selection, task)

    def _estimate(self, network: Network, selection: Selection, task: Task) -> Memory:
        return estimate(network, selection, self.structure, rank=self.rank, num_rows=task.num_train)

    def _over_head(self, point: Point, task: Task) -> HeadLaplace:
        fit = HeadFit.of(
            point.network,
            task.train,
            self.structure,
            kind=self.kind,
            temperature=self.temperature,
        )
        prior = self.prior_precision
        if prior == "marginal_likelihood":
            prior = minimise(lambda p: -float(fit.evidence(p)), *PRIOR_RANGE)
        made = HeadLaplace(
            point.network,
            self.structure,
            stacked([value.tensors() for value in fit.curvatures]),
            1.0 if isinstance(prior, str | tuple) else float(prior),
            self.link,
            self.num_draws,
            0.0,
            point.noise,
        )
        if isinstance(prior, str | tuple):
            made.prior_precision = tuned_head(made, task.calibration, prior if isinstance(prior, tuple) else None)
        made.evidence = float(fit.evidence(made.prior_precision))
        return made

    def _over_network(self, point: Point, task: Task) -> NetworkLaplace:
        network = point.network
        if network.stochastic or network.num_members > 1:
            raise CannotCompose(
                "Laplace() beyond the head is of one network with one set of weights, and this one "
                + ("draws" if network.stochastic else f"has {network.num_members} members")
                + ". Write subset='head' where the surgery leaves the head as it is (batch_ensemble, rank1_bnn and "
                "mean_field do with within='features'), or use deep_ensemble, with Laplace() in its members, in place "
                "of the surgery"
            )
        selection, indices = self._selection(network, task)
        rows = self._estimate(network, selection, task).rows(self.memory * 2**30, structure=self.structure)
        like = next(network.parameters())
        check_uses(network, selection.watches, next(task.train.ordered(2)).to(like.device, like.dtype).x)
        found = streamed(
            network,
            selection,
            task.train,
            structure=self.structure,
            kind=self.kind,
            rank=self.rank,
            temperature=self.temperature,
            rows=rows,
        )
        groups = grouped(selection.names, by_layer=self.prior_scope == "layer")
        evidence = NetworkEvidence(found.curvature, found.log_likelihood, selection.theta(), groups)
        prior = self.prior_precision
        if prior == "marginal_likelihood":
            each = evidence.best()
        else:
            each = evidence.theta.new_full((evidence.num_groups,), 1.0 if isinstance(prior, str | tuple) else prior)
        made = NetworkLaplace(
            network,
            self.structure,
            found.curvature.tensors(),
            selection.names,
            indices,
            evidence.per_tensor(each).tolist(),
            self.link,
            self.num_draws,
            0.0,
            point.noise,
            rows,
        )
        if isinstance(prior, str | tuple) and prior != "marginal_likelihood":
            each = each * tuned_network(made, task.calibration, prior if isinstance(prior, tuple) else None)
            made.prior_precision = tuple(evidence.per_tensor(each).tolist())
        made.evidence = float(evidence(each))
        return made

    def _selection(self, network: Network, task: Task) -> tuple[Selection, Int[Tensor, " selected"] | None]:
        """The chosen weights; and their flat places where they are single ones."""
        if callable(self.subset):
            indices = self.subset(network, task)
            return Selection.of_indices(network, indices), indices
        trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        if self.subset == "head":
            own = {id(parameter) for parameter in linear_readout(network).parameters()}
            names = [name for name, parameter in network.named_parameters() if id(parameter) in own]
        elif self.subset == "all":
            names = trainable
        else:
            names = [name for name in trainable if any(matches(name, pattern) for pattern in self.subset)]
        if not names:
            raise CannotCompose(
                f"Laplace: subset={self.subset!r} matches none of the parameters that require a gradient: "
                f"{', '.join(trainable[:8])}{', ...' if len(trainable) > 8 else ''}. Write patterns of these names"
            )
        return Selection.of_names(network, names), None


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter's name, or its layer's, is of a pattern."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)
