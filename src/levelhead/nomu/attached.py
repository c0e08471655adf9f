"""A side network beside a predictor that was trained without one, and that stays as it is."""

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.likelihood import Gaussian, Signature
from levelhead.network import Network
from levelhead.noiseless import Noiseless
from levelhead.nomu.likelihood import with_model_std
from levelhead.nomu.readout import Readout
from levelhead.nomu.side import side_layers
from levelhead.predictive import GaussianMixture, Predictive
from levelhead.predictor import Point, Predictor


class Side(nn.Module):
    """r = W [h_f, h_r(x)] + b for features h_f that are given."""

    def __init__(self, signature: Signature, width: int, hidden: tuple[int, ...], num_targets: int) -> None:
        super().__init__()
        self.side = side_layers(signature, hidden)
        self.raw = nn.Linear(width + hidden[-1], num_targets)

    def forward(
        self, x: Float[Tensor, "batch *input"], features: Float[Tensor, "row batch feature"]
    ) -> Float[Tensor, "row batch target"]:
        """Raw model uncertainty of every row: members and samples have features of their own and share the rest."""
        own = repeat(self.side(x), "batch feature -> row batch feature", row=len(features))
        return self.raw(torch.cat([features, own], dim=-1))


class AttachedUncertainty(Predictor):
    """A predictor's own belief, with the model's part of its variances from a side network: f and its noise stay.

    weights  of the side network, by name as `Side` has them.
    """

    def __init__(self, inner: Point, weights: Mapping[str, Tensor], readout: Readout) -> None:
        super().__init__()
        self.inner = inner
        self.readout = readout
        self.side = side_of(inner.network, hidden_widths(weights)).to(next(iter(weights.values())))
        self.side.load_state_dict(dict(weights))
        self.side.requires_grad_(False)
        self.eval()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The side network's weights."""
        return dict(self.side.state_dict())

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        belief, raw, scale = self.parts(x)
        return with_model_std(belief, scale * self.readout(raw))

    def parts(
        self, x: Float[Tensor, "batch *input"]
    ) -> tuple[GaussianMixture, Float[Tensor, "row batch target"], Float[Tensor, " target"]]:
        """The inner belief, the raw uncertainty, and what a standardised deviation is in the targets' units."""
        belief = self.inner(x)
        assert isinstance(belief, GaussianMixture), "the step has looked"
        likelihood = self.inner.network.likelihood
        assert isinstance(likelihood, Gaussian | Noiseless), "the step has looked"
        return belief, self.side(x, self.inner.embed(x)), belief.means.new_tensor(likelihood.scale)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)

    def networks(self) -> Iterator[Network]:
        """The network inside."""
        yield from self.inner.networks()


def side_of(network: Network, hidden: tuple[int, ...]) -> Side:
    """A side network for the features of a network."""
    likelihood = network.likelihood
    assert isinstance(likelihood, Gaussian | Noiseless), "the step has looked"
    return Side(network.signature, network.width, hidden, likelihood.num_targets)


def hidden_widths(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The widths of the hidden layers that these weights are of."""
    found = {name: len(t) for name, t in weights.items() if re.fullmatch(r"side\.hidden\d+\.linear\.bias", name)}
    return tuple(found[name] for name in sorted(found, key=lambda name: int(re.findall(r"\d+", name)[0])))
