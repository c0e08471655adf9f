"""Alternating training: weights on the training rows, hyper-parameters on the validation rows, in turns."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.forward import Forward, Objective
from levelhead.layers.conditional_weights import tuned_l2
from levelhead.layers.conditioned import SMOOTHING
from levelhead.layers.hyper_ranges import REDUCTIONS, SPACES, Tunable
from levelhead.likelihood import Categorical, soft
from levelhead.network import Network
from levelhead.passes import seeded, still
from levelhead.predictive import Predictive, mix
from levelhead.predictor import Predictor, noise_of, samples_of
from levelhead.samplers._around import Around
from levelhead.samplers._response import RESPONSES, Responding, check_centred, fixed
from levelhead.samplers.adamw import AdamW
from levelhead.tasks.task import Split, Task
from levelhead.training import Run, Sampler
from levelhead.types import Batch, CannotCompose, Reference, Scalar

LOSSES, SPLITS = ("ensemble", "gibbs"), ("val", "train")
NO_HYPER = (
    "Alternating tunes hyper-parameters, and this network has none; put the surgery HyperBatch() or SelfTuning() into "
    "the recipe, or leave Alternating out"
)


@dataclass(frozen=True)
class Alternating(Around):
    """`every` steps of `inner` on training rows at drawn hyper-parameters, then one step of these on validation rows.

    Training: E_lambda[ mean_k loss(f_k(x; lambda_k), y, lambda_k) ] + R / N, one lambda a row; R is the L2 penalty of
    each row's own weights, dropout and label smoothing are the row's. The distributions of lambda stay.
    Tuning: E_lambda[ -log mean_k p_k(y | x, lambda_k) ] - tau * entropy, through the weights' response to lambda alone:
    evaluation mode, no dropout, smoothing or penalty. Only the distributions move, by Adam.

    inner          any gradient sampler, or a wrapper of one. Its weight decay acts on what has no coefficient of its
                   own (norms).
    lr             of Adam on the distributions: 1e-3 for the paper's ResNets; small models want 3e-2.
    tau            weight of the entropy. Of lambda itself ("lambda", the paper's) it also draws every interval towards
                   larger lambda; "log" only widens them. "mean" over members and hyper-parameters (the authors' code)
                   or "sum" (the paper's text: tau means K * H times as much).
    warmup_epochs  without tuning, 5 in self-tuning networks.
    loss           "ensemble" (above) or "gibbs", the mean of the members' losses, for comparison.
    split          the rows that tune: "val". "train" is the ablation that makes regularisation vanish.
    response       "joint": one step moves the network and its response to lambda together. "apart" and "linear" are
                   Delta-STN's two groups, for SelfTuning(centred=True): a step of the network at the present lambda,
                   then one of the response at drawn ones, whose weights are moved, or moved to first order.
    num_draws      predictions: 0 at one point (the surgery's `predict_at`), n a mixture over as many draws as well.

    Raises CannotCompose on networks without hyper-parameters.

    Wenzel et al., arXiv 2006.13570; MacKay et al., arXiv 1903.03088; Bae & Grosse, arXiv 2010.13514.
    """

    reference: ClassVar[Reference] = Reference(
        "Wenzel, Snoek, Tran and Jenatton",
        2020,
        arxiv="2006.13570",
        title="Hyperparameter Ensembles for Robustness and Uncertainty Quantification",
    )
    inner: Sampler[Any] = field(default_factory=lambda: AdamW(weight_decay=0.0))
    every: int = 3
    lr: float = 1e-3
    tau: float = 1e-3
    entropy: str = "mean"
    entropy_space: str = "lambda"
    warmup_epochs: float = 0.0
    loss: str = "ensemble"
    split: str = "val"
    response: str = "joint"
    num_draws: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("entropy", self.entropy, REDUCTIONS),
            ("entropy_space", self.entropy_space, SPACES),
            ("loss", self.loss, LOSSES),
            ("split", self.split, SPLITS),
            ("response", self.response, RESPONSES),
        ):
            if value not in known:
                raise ValueError(f"Alternating: {name} must be one of {', '.join(map(repr, known))}; got {value!r}")
        if self.every < 1 or self.num_draws < 0:
            raise ValueError(f"Alternating: wants every >= 1 and num_draws >= 0, got {self.every} and {self.num_draws}")
        if self.lr < 0 or self.tau < 0 or self.warmup_epochs < 0:
            raise ValueError("Alternating: lr, tau and warmup_epochs must not be negative")

    def init(self, network: Network, task: Task, run: Run) -> "AlternatingState":
        """See `Sampler.init`."""
        if not isinstance(network.hyper, Tunable):
            raise CannotCompose(NO_HYPER)
        if SMOOTHING in network.hyper.names and (
            not isinstance(network.likelihood, Categorical) or network.likelihood.void is not None
        ):
            raise CannotCompose(
                f"Alternating: label smoothing wants classes that all count, not {network.likelihood}; leave "
                "label_smoothing_range=None"
            )
        if self.response != "joint":
            check_centred(network, self.response)
        return AlternatingState(self, network, network.hyper, task, run)

    def step(self, state: "AlternatingState", objective: Objective, batch: Batch) -> Scalar:
        """One inner step at drawn hyper-parameters; every few of them, one step of their distributions."""
        drawn = state.hyper.sample(len(batch.x)).detach()
        if state.responding is None:
            loss = self.inner.step(state.inner, *state.at(drawn, objective, batch))
        else:
            with fixed(state.responding.own):
                here = torch.zeros_like(drawn)  # no step away from the present hyper-parameters
                loss = self.inner.step(state.inner, *state.at(here, objective, batch))
            state.responding.step(*state.at(drawn, objective, batch))
        state.done += 1
        if state.done % self.every == 0 and state.done > state.warmup:
            state.tune()
        return loss

    def predictor(self, state: "AlternatingState") -> Predictor:
        """The inner predictor; with num_draws, one network at several draws of its hyper-parameters."""
        found = self.inner.predictor(state.inner)
        return found if self.num_draws == 0 else HyperDraws(state.network, self.num_draws)


class AlternatingState:
    """The inner state (or two), the optimiser of the distributions, and the place in the rows that tune."""

    def __init__(self, spec: Alternating, network: Network, hyper: Tunable, task: Task, run: Run) -> None:
        self.spec, self.hyper, self.run, self.network = spec, hyper, run, network
        self.responding: Responding | None = None
        if spec.response != "joint":
            self.responding = Responding(spec.inner, network, task, run, linear=spec.response == "linear")
        with fixed(() if self.responding is None else self.responding.own):
            self.inner = spec.inner.init(network, task, run)
        self.split: Split = getattr(task, spec.split)
        self.num_rows = len(task.train)
        self.parameters = list(hyper.parameters())
        self.optimiser = torch.optim.Adam(self.parameters, lr=spec.lr)
        self.warmup = spec.warmup_epochs * task.train.num_batches(spec.batch_size)
        self.done, self.round, self.place = 0, 0, 0
        self.batches: Iterator[Batch] | None = None

    def at(
        self, drawn: Float[Tensor, "member row hyper"], objective: Objective, batch: Batch
    ) -> tuple[Objective, Batch]:
        """Objective and batch of a step at these hyper-parameters, one a row."""
        return self.regularised(objective, drawn), batch._replace(hyper=drawn)

    def regularised(self, objective: Objective, drawn: Float[Tensor, "member row hyper"]) -> Objective:
        """The objective with the rows' own label smoothing, and their L2 penalty."""

        def extended(forward: Forward) -> Scalar:
            if SMOOTHING in self.hyper.names:
                forward = forward.on(y=self.smoothed(forward))
            return objective(forward) + tuned_l2(self.network, drawn) / self.num_rows

        return extended

    def smoothed(self, forward: Forward) -> Float[Tensor, "member row class"]:
        """The labels of every member's rows, each smoothed at its own rate."""
        assert forward.batch.hyper is not None, "set by the step"
        rate = self.hyper.values(forward.batch.hyper)[..., self.hyper.names.index(SMOOTHING), None]
        y = soft(forward.batch.y, self.network.num_outputs, asker="Alternating").to(rate.dtype)
        return (1 - rate) * y + rate / self.network.num_outputs

    def tune(self) -> Scalar:
        """One step of the distributions on the next rows of the split; nothing else moves. Returns its loss."""
        batch = self.next_batch()
        with still(self.network), torch.enable_grad():
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            try:
                loss = self.tuning_loss(batch)
                for parameter, slope in zip(
                    self.parameters, torch.autograd.grad(loss, self.parameters, allow_unused=True), strict=True
                ):
                    parameter.grad = slope
            finally:
                for parameter in self.parameters:
                    parameter.requires_grad_(False)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.hyper.project()
        return loss.detach()

    def tuning_loss(self, batch: Batch) -> Scalar:
        """-log mean_k p_k(y) at fresh draws, less tau times the entropy."""
        outputs = self.network(batch.x, hyper=self.hyper.sample(len(batch.x)))
        losses = self.network.likelihood.member_loss(outputs, batch.y)
        if self.spec.loss == "ensemble":
            losses = math.log(len(losses)) - torch.logsumexp(-losses, dim=0)
        return losses.mean() - self.spec.tau * self.hyper.entropy(self.spec.entropy, self.spec.entropy_space)

    def next_batch(self) -> Batch:
        """The rows that tune, shuffled anew each time they are through, clean and not augmented."""
        if self.batches is None:
            self.batches = self.shuffled(skip=self.place)
        batch = next(self.batches, None)
        if batch is None:
            self.round, self.place = self.round + 1, 0
            self.batches = self.shuffled()
            batch = next(self.batches)
        self.place += 1
        like = self.parameters[0]
        return batch.to(like.device, like.dtype)

    def shuffled(self, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of this round, from some place on."""
        batches = self.split.batches(self.spec.batch_size, self.run.generator("tune", self.round))
        for _ in range(skip):
            next(batches)
        return batches

    def state_dict(self) -> dict[str, Any]:
        """All optimisers, and the place."""
        responding = {} if self.responding is None else {"responding": self.responding.state.state_dict()}
        return responding | {
            "inner": self.inner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "place": [self.done, self.round, self.place],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; the distributions are part of the network."""
        if self.responding is not None:
            self.responding.state.load_state_dict(state["responding"])
        self.inner.load_state_dict(state["inner"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.round, self.place = state["place"]
        self.batches = None


class HyperDraws(Predictor):
    """One network at the point where it predicts and at draws of its hyper-parameters, as an equal mixture."""

    def __init__(self, network: Network, num_draws: int, noise: int | None = 0) -> None:
        super().__init__()
        self.network = network
        self.num_draws = num_draws
        self.noise = noise
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        return mix([self.belief(x, hyper) for hyper in self.points(len(x))])

    def points(self, num_rows: int) -> list[Tensor | None]:
        """Where it predicts: the one point, then draws, each for all rows alike."""
        assert isinstance(self.network.hyper, Tunable), "Alternating has looked"
        noise = int(torch.randint(2**31, ())) if self.noise is None else self.noise
        with seeded(noise, self.network.device):
            drawn = self.network.hyper.sample(self.num_draws).detach()
        return [None, *(drawn[:, [j]].expand(-1, num_rows, -1) for j in range(self.num_draws))]

    def belief(self, x: Tensor, hyper: Tensor | None) -> Predictive:
        """The belief at one point."""
        with noise_of(self.noise, self.network):
            outputs = self.network(x, hyper=hyper, num_samples=samples_of(self.network))
        return self.network.likelihood.predictive(outputs)

    def children_predictors(self) -> Sequence[Predictor]:
        """None: this is a leaf."""
        return ()

    def networks(self) -> Iterator[Network]:
        """The network, once: its passes are num_draws + 1."""
        yield self.network

    def with_noise(self, noise: int | None) -> "HyperDraws":
        """See `Predictor.with_noise`."""
        self.noise = noise
        return self

    @property
    def stochastic(self) -> bool:
        """It draws hyper-parameters."""
        return True
