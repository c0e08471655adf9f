"""Hyper-batch ensembles: BatchEnsemble whose members each learn a distribution over their hyper-parameters."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from levelhead.layers.conditional_weights import ConditionalWeights
from levelhead.layers.conditioned import Regularisers, check_ranges, conditioned
from levelhead.layers.fast_weights import INITS
from levelhead.layers.hyper_ranges import POINTS, LogUniformHyper
from levelhead.network import Network
from levelhead.types import Reference


@dataclass(frozen=True)
class HyperBatch:
    """W_k(lambda) = W o (s_k r_k') + [D o (v_k u_k')] o e(lambda), lambda ~ log-uniform on [alpha_k, beta_k], per row.

    In every linear layer and convolution, for num_members members in one pass. Train with `Alternating`: it draws a
    lambda for each row, lets it act (L2 of the row's own weights, the row's dropout and label smoothing), and moves
    alpha and beta by the validation rows. Other samplers train at the mean of lambda without these regularisers.

    l2_range, groups       of the coefficients of |weight|^2 / N: one for each "stage" of the features (the paper's
                           ResNets), each "layer", or the whole "model"; the head's weight and bias have their own.
    dropout_range, dropout_where  of one dropout rate, before the "head" or all "layers" but the first.
    label_smoothing_range  of one rate of label smoothing.
    interval               share of each (logarithmic) range that the first intervals cover: 1 in the paper's small
                           models; its ResNets start an order of magnitude narrower, the released script far narrower.
    predict_at             "mean" of each interval (the paper), or "median": the mean of a wide one is near its top.
    tied                   u = r and v = s, as for ResNets.
    init, init_scale       of the vectors, as in BatchEnsemble.
    embedding_scale        standard deviation of e's initial weights. hidden: None, e is linear; else one layer of tanh.
    regularise_vectors     L2 on what a row's weights are; False: on W and D without their vectors.
    per_member_norm        as in BatchEnsemble.
    fast_lr                factor on the learning rate of vectors and biases.

    Hyper-parameters are paired with rows, so rows must stay rows: layers that fold windows or patches into the leading
    axis (Swin) train with rows mixed up. Raises NoLayerReplaced without linear layers, CannotCompose beside another
    surgery with hyper-parameters or another number of members.

    Wenzel, Snoek, Tran & Jenatton, arXiv 2006.13570.
    """

    reference: ClassVar[Reference] = Reference(
        "Wenzel, Snoek, Tran and Jenatton",
        2020,
        arxiv="2006.13570",
        title="Hyperparameter Ensembles for Robustness and Uncertainty Quantification",
    )
    num_members: int = 4
    l2_range: tuple[float, float] | None = (0.1, 100.0)
    groups: str = "stage"
    dropout_range: tuple[float, float] | None = None
    dropout_where: str = "head"
    label_smoothing_range: tuple[float, float] | None = None
    interval: float = 1.0
    predict_at: str = "mean"
    tied: bool = True
    init: str = "normal"
    init_scale: float = 0.75
    embedding_scale: float = 1e-4
    hidden: int | None = None
    regularise_vectors: bool = False
    per_member_norm: bool = True
    fast_lr: float = 0.5

    def __post_init__(self) -> None:
        check_ranges("HyperBatch", self.tuned)
        if self.num_members < 1:
            raise ValueError(f"HyperBatch: num_members must be at least 1, got {self.num_members}")
        for name, value, known in (("init", self.init, INITS), ("predict_at", self.predict_at, POINTS)):
            if value not in known:
                raise ValueError(f"HyperBatch: {name} must be one of {', '.join(map(repr, known))}; got {value!r}")
        if not 0 < self.interval <= 1:
            raise ValueError(f"HyperBatch: interval must be in (0, 1], got {self.interval}")
        if self.init_scale < 0 or self.fast_lr < 0 or self.embedding_scale <= 0:
            raise ValueError("HyperBatch: init_scale and fast_lr must not be negative, embedding_scale not even zero")

    @property
    def tuned(self) -> Regularisers:
        """What is tuned."""
        return Regularisers(
            self.l2_range, self.groups, self.dropout_range, self.dropout_where, self.label_smoothing_range
        )

    def __call__(self, network: Network) -> Network:
        """The network with num_members members and their hyper-parameters."""
        return conditioned(
            network,
            self.tuned,
            author="HyperBatch",
            num_members=self.num_members,
            hyper=partial(LogUniformHyper, num_members=self.num_members, share=self.interval, point=self.predict_at),
            layer=self.layer,
            per_member_norm=self.per_member_norm,
        )

    def layer(
        self, module: nn.Module, num_hyper: int, *, kernel: int | None, bias_of: int | None
    ) -> ConditionalWeights:
        """The layer in place of a linear one."""
        return ConditionalWeights(
            module,
            self.num_members,
            num_hyper,
            tied=self.tied,
            init=self.init,
            init_scale=self.init_scale,
            embedding_scale=self.embedding_scale,
            hidden=self.hidden,
            kernel=kernel,
            bias_of=bias_of,
            whole=self.regularise_vectors,
            fast_lr=self.fast_lr,
        )
