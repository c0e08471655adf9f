"""What a layer may declare to the network that holds it: that it draws, owns members, or waits for hyper-parameters.

`Network` reads these declarations to decide where the member and sample axes enter, which noise is replayed, and which
parameters get their own optimiser settings. No layer tiles a batch for itself.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn


class Hint(NamedTuple):
    """Optimiser settings a layer asks for one of its parameters: factor on the learning rate, weight decay or not."""

    lr: float = 1.0
    decay: bool = True


class Declared(nn.Module):
    """A layer with declarations. `hints` maps names of parameters, from this layer on, to optimiser settings."""

    hints: ClassVar[Mapping[str, Hint]] = {}


@runtime_checkable
class KeepsStatistics(Protocol):
    """A layer with running statistics, as torch's BatchNorm keeps them: moved only in training, while tracking."""

    track_running_stats: bool
    momentum: float | None

    def reset_running_stats(self) -> None:
        """Forget what was seen."""

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """The statistics, among other buffers."""


class Stochastic(Declared):
    """A layer that draws: always while training, at prediction only when the network is asked for samples."""

    sampling: bool = False  # set by the network around a pass that wants samples
    muted: bool = False  # set by `still`
    blocks: int = 1  # (member sample) blocks in the leading axis, and the rows of each; see `expect`
    block_rows: int = 1

    @property
    def drawing(self) -> bool:
        """Whether this pass draws."""
        return (self.training or self.sampling) and not self.muted

    def expect(self, blocks: int, block_rows: int) -> None:
        """The network says before a pass how many (member sample) blocks of how many rows come."""
        self.blocks, self.block_rows = blocks, block_rows

    def blocks_in(self, num_rows: int) -> int:
        """How many blocks `num_rows` rows are: fewer where the layer around hands each member its own rows alone."""
        return max(1, min(self.blocks, num_rows // self.block_rows))


class Pace(NamedTuple):
    """Where training stands: epoch, step within it (both from 0), and seeds that belong to (run, epoch[, step])."""

    epoch: int
    step: int
    epoch_seed: int
    step_seed: int


class Paced(Declared):
    """A layer that changes as training goes on; told where training stands before every step.

    What it does must be a function of `now` and of the layer alone, so that a resumed fit equals one that was never
    killed. All layers get the same seeds: a choice that the whole network shares is drawn from a seed alone, a layer's
    own from the seed and its place.
    """

    def pace(self, now: Pace) -> None:
        """Become what the layer is to be in this step."""
        raise TypeError(f"{type(self).__name__} must define pace")


class Posterior(Stochastic):
    """A layer that draws its parameters from a distribution q, whose distance to a prior an objective can price."""

    def kl(self, prior_scale: float | None) -> Float[Tensor, ""]:
        """KL(q || prior) in nats, for a prior of this scale; None: the scale that the layer chooses."""
        raise TypeError(f"{type(self).__name__} must define kl")


class Membered(Declared):
    """A layer whose parameters differ from member to member; its input's leading axis is (member sample batch)."""

    num_members: int

    def by_member(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "member rest ..."]:
        """The input with its member axis unfolded. Raises ValueError where the rows are no multiple of the members."""
        if x.shape[0] % self.num_members:
            raise ValueError(
                f"{type(self).__name__}: {x.shape[0]} rows cannot be shared by {self.num_members} members; "
                "call it through a Network, which tiles the batch"
            )
        return rearrange(x, "(member rest) ... -> member rest ...", member=self.num_members)


class Conditional(Membered):
    """A layer that reads hyper-parameters; the network hands them over before each pass.

    condition  in the coordinates of the network's `Hyper`: gradients flow through these.
    settings   in their own units (a rate, a coefficient), detached: a mask is drawn with these.
    """

    condition: Float[Tensor, "member batch hyper"] | None = None
    settings: Float[Tensor, "member batch hyper"] | None = None

    def condition_rows(self, num_rows: int) -> Float[Tensor, "rows hyper"]:
        """The coordinates of every row, (member sample batch) order; joint passes repeat whole blocks."""
        return self._rows(self.condition, num_rows)

    def setting_rows(self, num_rows: int) -> Float[Tensor, "rows hyper"]:
        """The settings of every row, as `condition_rows`."""
        return self._rows(self.settings, num_rows)

    def _rows(self, draws: Tensor | None, num_rows: int) -> Tensor:
        if draws is None:
            raise RuntimeError(f"{type(self).__name__} is reached only through its Network, which sets `condition`")
        members, batch, _ = draws.shape
        if num_rows % (members * batch):
            raise ValueError(
                f"{type(self).__name__}: {num_rows} rows are no multiple of {members} members x {batch} draws of hyper"
            )
        return repeat(draws, "k b h -> (k block b) h", block=num_rows // (members * batch))


class Hyper(nn.Module):
    """The hyper-parameters of a network; a concrete container says how they are parametrised and distributed.

    Everywhere a `hyper` is passed it is in coordinates, in which layers read it; `values` turns them into settings.
    """

    def mean(self) -> Float[Tensor, "member hyper"]:
        """The coordinates at which the network predicts when nobody passes hyper-parameters."""
        raise TypeError(f"{type(self).__name__} must define mean()")

    def values(self, coordinates: Float[Tensor, "*row hyper"]) -> Float[Tensor, "*row hyper"]:
        """Coordinates in the hyper-parameters' own units."""
        return coordinates
