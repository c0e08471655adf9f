"""FiLM-Ensemble: members share every weight and own the scales and shifts of the norms, with their statistics."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from levelhead.declared import Membered
from levelhead.layers.around import Around
from levelhead.layers.film import INITS, Affine, FiLM
from levelhead.layers.places import CONVOLUTIONS
from levelhead.network import Network
from levelhead.types import Reference

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
BARE = "it has no scale and shift of one number a channel: shared by all members"
SAME_MEMBERS = (
    "FilmEnsemble(init='copy') starts all members alike, and they see the same batches: without a layer that draws "
    "they stay alike for ever. Use init='xavier', or 'normal' with a small gain for a pretrained network"
)


@dataclass(frozen=True)
class FilmEnsemble:
    """y_k = gamma_k * (h - mu_k) / sqrt(v_k + eps) + beta_k in every norm, for num_members members in one pass.

    mu_k and v_k are statistics of member k's own rows (of each example, for group and layer norms). Convolutions,
    linear layers and head are shared: 2 C more parameters for a norm of C channels and member. Where the features have
    no norm, a layer gamma_k * h + beta_k is put behind each of their convolutions and linear layers. Every member sees
    every batch; the loss is the mean of the members' losses; predictions mix the members.

    num_members  K. The authors' script has 2, the paper goes up to 16.
    init         of gamma and beta, and with it how diverse members stay: "xavier" (the authors' own) uniform on
                 +-gain sqrt(6 / (K + C)), "bernoulli" +-gain, "normal" the network's own plus Normal(0, gain^2) (for
                 pretrained networks, with a small gain), "copy" members that never part unless a layer draws.
    gain         spread of the initial values: 1 in the authors' script for convolutional networks.
    decay        weight decay on gamma and beta, as in the authors' script; it draws the members together.

    The reference code normalises with the unbiased variance in training; here as torch does, with the biased one.
    Raises NoLayerReplaced for features without norms, convolutions and linear layers, CannotCompose where another
    surgery declared another number of members.

    Turkoglu et al., arXiv 2206.00050.
    """

    reference: ClassVar[Reference] = Reference(
        "Turkoglu et al.",
        2022,
        arxiv="2206.00050",
        title="FiLM-Ensemble: Probabilistic Deep Learning via Feature-wise Linear Modulation",
    )
    redraws: ClassVar[bool] = True  # scales and shifts start anew, unless init says otherwise
    num_members: int = 4
    init: str = "xavier"
    gain: float = 1.0
    decay: bool = False

    def __post_init__(self) -> None:
        if self.num_members < 1:
            raise ValueError(f"FilmEnsemble: num_members must be at least 1, got {self.num_members}")
        if self.init not in INITS:
            raise ValueError(f"FilmEnsemble: init must be one of {', '.join(map(repr, INITS))}; got {self.init!r}")
        if self.gain <= 0:
            raise ValueError(f"FilmEnsemble: gain must be positive, got {self.gain}; for no spread write init='copy'")

    def __call__(self, network: Network) -> Network:
        """The network with num_members members."""
        if self.init == "copy" and self.num_members > 1 and not network.stochastic:
            warnings.warn(SAME_MEMBERS, stacklevel=2)
        taken = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, Membered))
        free = [(n, m) for n, m in network.named_modules() if n.startswith("features") and not n.startswith(taken)]
        norms = {n for n, m in free if isinstance(m, NORMS) and _is_modulated(m)}
        bare = tuple((n, BARE) for n, m in free if isinstance(m, NORMS) and n not in norms)
        declared = network.copy().declare(num_members=self.num_members)
        if norms:
            return declared.replace(
                lambda name, _: name in norms, self.layer, within="features", author="FilmEnsemble", skipped=bare
            )
        layers = {n for n, m in free if isinstance(m, (nn.Linear, *CONVOLUTIONS))}
        return declared.replace(
            lambda name, _: name in layers, self.behind, within="features", author="FilmEnsemble", skipped=bare
        )

    def layer(self, norm: nn.Module) -> FiLM:
        """The members' copies of a norm."""
        return FiLM(norm, self.num_members, init=self.init, gain=self.gain, decay=self.decay)

    def behind(self, module: nn.Module) -> Around:
        """A convolution or linear layer with modulation behind it."""
        if isinstance(module, nn.Linear):
            affine = Affine(module.out_features, -1)
        else:
            affine = Affine(module.out_channels)  # type: ignore[arg-type]
        return Around(module, after=self.layer(affine))


def _is_modulated(norm: nn.Module) -> bool:
    """Whether a norm multiplies and shifts each channel by a number of its own."""
    pair = (norm.weight, norm.bias)
    return all(isinstance(p, nn.Parameter) and p.ndim == 1 for p in pair)
