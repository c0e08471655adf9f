"""Self-attention at the ends of a network's stages: AlterNet's build-up rule on a network that somebody else made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import nn

from levelhead.declared import Declared, Membered
from levelhead.layers.initialise import he_normal
from levelhead.layers.local_attention import checked_heads, head_size, window_for
from levelhead.layers.msa_block import VARIANTS, MSABlock
from levelhead.layers.stages import Unit, room, stages, tail
from levelhead.network import Network, Note
from levelhead.types import CannotCompose, NoLayerReplaced, Reference

NO_STAGES = (
    "MSATail found no block of convolutions that keeps the shape of its map, so there is no place for attention. "
    "Use it on networks with two blocks a stage or more, such as resnet20, or use alter_net, vit, pit or swin"
)
WRONG_COUNT = "MSATail: msa={msa} wants one number a stage; this network has {count} stages, of {sizes} blocks"
NO_ROOM = (
    "MSATail: msa={msa} wants {wanted} MSA blocks in stage {stage}, whose {size} blocks hold at most {room}: the first "
    "one stays a convolution, and of the others every second one is replaced. Put a smaller number there"
)
OWNED = "MSATail replaces {name} and with it what {author} put there: put msa_tail before the surgery that did"
MEMBERED = (
    "MSATail: the features hold parameters of members, of which attention would have none, or whose channels it would "
    "mix: put msa_tail before the surgery that gives them"
)
TWICE = (
    "MSATail would replace {name}, which is an MSA block: put all of them into the msa of one msa_tail (or alter_net)"
)
FROZEN = "MSATail replaces {name}, whose weights are frozen: leave freezing to blocks that stay, or choose another msa"


@dataclass(frozen=True)
class MSATail:
    """The last block of a stage becomes a block of local self-attention (MSA), and every second one before it.

    Stages and blocks are found by running an example: a stage is a run of residual blocks whose maps have one shape. In
    a network without residual blocks (VGG) it is a run of convolutions. Of a stage's n blocks at most n / 2 are
    replaced: [conv] * (n - 2m) + [conv, MSA] * m, so the first one, which strides, stays. Blocks that stay keep their
    weights; a trained network needs fine-tuning.

    msa            MSA blocks a stage, first stage first, such as (0, 1, 1, 2). None: one in every stage behind the
                   first that has room for one; where none has, one in the first.
    heads          a stage; the last number serves the stages behind it too.
    dim_head       features a head; None for three times the block's narrowest convolution over the heads, as AlterNet.
    window         pixels a side; None for each map's own: 7 where that tiles it, else 4.
    variant        "B" pre-activation or "A" post-activation (see `layers.msa_block`).
    per_head_bias  a table of relative positions for each head; the authors share one.
    zero_init      the new branches start at 0, so that the new blocks start as the identity.

    Norms are GroupNorm where the network has no others, else BatchNorm. Convolutions ~ Normal(0, 2 / fan_out). Raises
    NoLayerReplaced where no stage has room, CannotCompose where `msa` does not fit, where a block that is to go holds
    another surgery's layers or frozen weights, and where features have members.

    Park & Kim, arXiv 2202.06709.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim", 2022, arxiv="2202.06709", title="How Do Vision Transformers Work?"
    )
    redraws: ClassVar[bool] = True  # attention has other weights than the convolutions it replaces
    msa: tuple[int, ...] | None = None
    heads: tuple[int, ...] = (3, 6, 12, 24)
    dim_head: int | None = None
    window: int | None = None
    variant: str = "B"
    per_head_bias: bool = False
    zero_init: bool = False

    def __post_init__(self) -> None:
        checked_heads("MSATail", self.heads, self.dim_head, self.window)
        if self.variant not in VARIANTS:
            raise ValueError(f"MSATail: variant must be one of {', '.join(map(repr, VARIANTS))}; got {self.variant!r}")
        if self.msa is not None and (min(self.msa, default=0) < 0 or not any(self.msa)):
            raise ValueError(f"MSATail: msa wants numbers from 0 on, one of them positive; got {self.msa}")

    def __call__(self, network: Network) -> Network:
        """The network with an MSA block at each place."""
        if any(isinstance(module, Membered) for module in network.features.modules()):
            raise CannotCompose(MEMBERED)
        found = stages(network.trace())
        spots = {unit.name: (i, unit) for i, units in enumerate(self.chosen(found)) for unit in units}
        for _, unit in spots.values():
            check_replaceable(unit, network.notes)
        norm = "group" if network.layers(nn.GroupNorm) and not network.layers(nn.BatchNorm2d) else "batch"
        at: dict[nn.Module, tuple[int, Unit]] = {}

        def match(name: str, module: nn.Module) -> bool:
            if name in spots:
                at[module] = spots[name]
            return name in spots

        def make(module: nn.Module) -> nn.Module:
            return self.block(*at[module], norm=norm)

        return network.replace(match, make, author="MSATail")

    def chosen(self, found: Sequence[Sequence[Unit]]) -> list[tuple[Unit, ...]]:
        """The blocks to replace, by stage."""
        rooms = [room(units) for units in found]
        if not any(rooms):
            raise NoLayerReplaced(NO_STAGES)
        msa = self.msa
        if msa is None:
            later = [min(1, n) for n in rooms[1:]]
            msa = (0, *later) if any(later) else (1, *later)
        sizes = ", ".join(str(len(units)) for units in found)
        if len(msa) != len(found):
            raise CannotCompose(WRONG_COUNT.format(msa=msa, count=len(found), sizes=sizes))
        for i, (wanted, most) in enumerate(zip(msa, rooms, strict=True)):
            if wanted > most:
                text = NO_ROOM.format(msa=msa, wanted=wanted, stage=i + 1, size=len(found[i]), room=most)
                raise CannotCompose(text)
        return [tail(units, m) for units, m in zip(found, msa, strict=True)]

    def block(self, stage: int, unit: Unit, *, norm: str) -> MSABlock:
        """The block that stands where a unit stood."""
        heads = self.heads[min(stage, len(self.heads) - 1)]
        made = MSABlock(
            unit.channels,
            unit.out,
            width=unit.width,
            heads=heads,
            dim_head=self.dim_head or head_size(unit.width, heads),
            window=self.window or window_for(*unit.size),
            per_head_bias=self.per_head_bias,
            norm=norm,
            variant=self.variant,
        )
        he_normal(made)
        if self.zero_init:
            made.rest()
        return made


def check_replaceable(unit: Unit, notes: Sequence[Note]) -> None:
    """Raise CannotCompose for a block of attention, or one that holds another surgery's layers or frozen weights."""
    if isinstance(unit.module, MSABlock):
        raise CannotCompose(TWICE.format(name=unit.name))
    for note in notes:
        if any(f"{place}.".startswith(f"{unit.name}.") for place in note.converted):
            raise CannotCompose(OWNED.format(name=unit.name, author=note.author))
    for module in unit.module.modules():
        if isinstance(module, Declared):
            raise CannotCompose(OWNED.format(name=unit.name, author=f"whoever made its {type(module).__name__}"))
    if any(not parameter.requires_grad for parameter in unit.module.parameters()):
        raise CannotCompose(FROZEN.format(name=unit.name))


def rooms(network: Network) -> tuple[int, ...]:
    """How many MSA blocks each stage of a network can hold: the largest `msa`."""
    return tuple(room(units) for units in stages(network.trace()))


class BuildUp(NamedTuple):
    """Where the build-up rule came to: counts a stage, their score, and everything that was tried, in order."""

    msa: tuple[int, ...]
    score: float
    tried: tuple[tuple[tuple[int, ...], float], ...]


def build_up(score: Callable[[tuple[int, ...]], float], most: Sequence[int]) -> BuildUp:
    """Add MSA blocks from the end of the network; where one more does not raise the score, go to the stage before.

    score  of `msa`, higher is better: the validation accuracy of a network that was trained with `MSATail(msa)`, or
           with `AlterNet(msa=msa)`. Called first for none at all.
    most   MSA blocks that each stage can hold: `rooms(network)`.

    The rule of Park & Kim, arXiv 2202.06709: at most sum(most) + 1 trainings.
    """
    if not any(most):
        raise ValueError(f"build_up: most wants a positive number for some stage, got {tuple(most)}")
    msa = (0,) * len(most)
    best = score(msa)
    tried = [(msa, best)]
    for stage in reversed(range(len(most))):
        while msa[stage] < most[stage]:
            more = (*msa[:stage], msa[stage] + 1, *msa[stage + 1 :])
            got = score(more)
            tried.append((more, got))
            if not got > best:
                break
            msa, best = more, got
    return BuildUp(msa, best, tuple(tried))
