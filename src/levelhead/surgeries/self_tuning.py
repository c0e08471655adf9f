"""Self-tuning networks: the weights are a function of the hyper-parameters, which training moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.conditioned import DROPOUT, SMOOTHING, Regularisers, check_ranges, conditioned
from levelhead.layers.hyper_ranges import GaussianHyper, HyperRange, LogUniformHyper, Tunable
from levelhead.network import Network
from levelhead.types import Reference

DISTRIBUTIONS = ("gaussian", "log_uniform")


@dataclass(frozen=True)
class SelfTuning:
    """w(lambda) = W + diag(V h) D, b(lambda) = b + (C h) o d: the best response of the weights, fitted around h.

    Each row is trained at its own h + sigma xi, and h moves down the loss of validation rows through w: one network,
    one run. Train with `Alternating`; other samplers train it at h without the regularisers that h stands for. One
    member: HyperBatch has several.

    l2_range, groups, dropout_range, dropout_where, label_smoothing_range  as in HyperBatch.
    distribution      "gaussian": h unbounded, its settings low * (high / low)^sigmoid(h) (the paper bounds settings by
                      a sigmoid too; logarithms are ours); "log_uniform": the intervals of HyperBatch.
    l2_start, dropout_start, label_smoothing_start  first settings ("gaussian").
    sigma             first standard deviation of h ("gaussian").
    centred           the response is to h less where h stands now: Delta-STN's parametrisation ("gaussian"). Its two
                      groups and the linearised response are `Alternating(response="linear")`.
    embedding_scale   standard deviation of (V; C) at first; Delta-STN starts them at 0.

    MacKay, Vicol, Lorraine, Duvenaud & Grosse, arXiv 1903.03088.
    """

    reference: ClassVar[Reference] = Reference(
        "MacKay, Vicol, Lorraine, Duvenaud and Grosse",
        2019,
        arxiv="1903.03088",
        title="Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions",
    )
    l2_range: tuple[float, float] | None = (0.1, 100.0)
    groups: str = "stage"
    dropout_range: tuple[float, float] | None = None
    dropout_where: str = "head"
    label_smoothing_range: tuple[float, float] | None = None
    distribution: str = "gaussian"
    l2_start: float = 1.0
    dropout_start: float = 0.05
    label_smoothing_start: float = 0.01
    sigma: float = 0.5
    centred: bool = False
    embedding_scale: float = 0.01

    def __post_init__(self) -> None:
        check_ranges("SelfTuning", self.tuned)
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"SelfTuning: distribution must be one of {DISTRIBUTIONS}, got {self.distribution!r}")
        if self.sigma <= 0 or self.embedding_scale < 0:
            raise ValueError(
                f"SelfTuning: sigma must be positive and embedding_scale not negative, got {self.sigma} and "
                f"{self.embedding_scale}"
            )
        if self.centred and self.distribution != "gaussian":
            raise ValueError("SelfTuning: centred=True is about the gaussian h; write distribution='gaussian'")
        for name, bounds, start in (
            ("l2", self.l2_range, self.l2_start),
            ("dropout", self.dropout_range, self.dropout_start),
            ("label_smoothing", self.label_smoothing_range, self.label_smoothing_start),
        ):
            if self.distribution == "gaussian" and bounds is not None and not bounds[0] < start < bounds[1]:
                raise ValueError(f"SelfTuning: {name}_start must be inside {name}_range {bounds}, got {start}")

    @property
    def tuned(self) -> Regularisers:
        """What is tuned."""
        return Regularisers(
            self.l2_range, self.groups, self.dropout_range, self.dropout_where, self.label_smoothing_range
        )

    def __call__(self, network: Network) -> Network:
        """The network with its hyper-parameters."""
        return conditioned(
            network,
            self.tuned,
            author="SelfTuning",
            num_members=1,
            hyper=self.hyper,
            layer=self.layer,
            per_member_norm=False,
        )

    def hyper(self, ranges: Sequence[HyperRange]) -> Tunable:
        """The distribution of the hyper-parameters."""
        if self.distribution == "log_uniform":
            return LogUniformHyper(ranges, 1)
        own = {DROPOUT: self.dropout_start, SMOOTHING: self.label_smoothing_start}
        start = [own.get(r.name, self.l2_start) for r in ranges]
        return GaussianHyper(ranges, 1, start=start, sigma=self.sigma, centred=self.centred)

    def layer(
        self, module: nn.Module, num_hyper: int, *, kernel: int | None, bias_of: int | None
    ) -> ConditionalWeights:
        """The layer in place of a linear one."""
        return ConditionalWeights(
            module,
            1,
            num_hyper,
            vectors=False,
            embedding_scale=self.embedding_scale,
            drawn_bias=True,
            kernel=kernel,
            bias_of=bias_of,
            fast_lr=1.0,
        )
