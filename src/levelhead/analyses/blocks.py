"""A network by depth: what its stem and each of its blocks return, as maps, found by running an example."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt, prod
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.analyses.running import ATTENTION, CONVOLUTION, MLP, Running, Sum, names_of, roots
from levelhead.declared import Declared
from levelhead.network import Network
from levelhead.probe import Call, Trace, evaluating, trace
from levelhead.types import CannotCompose

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SEVERAL = 2  # residual modules inside another one make that a stage and no block
BEFORE, AT_SUM, BEHIND = "before", "at a sum", "behind"
STEM = "stem"


class Block(NamedTuple):
    """A place in depth where a network's state can be read.

    name    of the module within its network; with " (k)" where one module adds several branches.
    kind    what leads there: stem, convolution, attention or mlp.
    module  its name.
    place   where in the module: before a call of it, at one of its sums, or behind it.
    sum     which of the module's sums ends the block, from 0; None where nothing is added.
    whole   whether an identity shortcut leads past it, so that its branch can be taken out.
    """

    name: str
    kind: str
    module: str
    place: str
    sum: int | None = None
    whole: bool = False

    @property
    def label(self) -> str:
        """Kind and name, for tables."""
        return self.name if self.name == self.kind else f"{self.kind} {self.name}"


See = Callable[[Block, Float[Tensor, "rows channel h w"]], None]


@torch.no_grad()
def blocks(module: nn.Module, x: Float[Tensor, "batch channel h w"]) -> tuple[Block, ...]:
    """The blocks of a network, or of all networks of a predictor at once, in the order of execution.

    A residual block ends where a module's own code adds a branch to what it was given (or to a shortcut of it); what
    the module returns counts, after its last activation. A module that adds several branches one after the other, as a
    transformer's block does, is a block for each. The stem is what comes into the first of them. Networks that add
    nothing have a block a convolution: with its norm, activation and low-pass, up to what reads it next.

    Raises CannotCompose where there is no map to read: tables, multilayer perceptrons.
    """
    found = _residual(module, x[:2]) or _plain(module, x[:2])
    if not found:
        raise CannotCompose(
            "this network has no blocks that return maps (channel, height, width) or tokens: it reads no image through "
            "convolutions or attention"
        )
    return found


@contextmanager
def watched(module: nn.Module, chosen: tuple[Block, ...], see: See) -> Iterator[None]:
    """While open, `see` gets every block's output of every pass, as a map of its own. Evaluation mode, no gradient."""
    names = names_of(module)
    by_sum = {(block.module, block.sum): block for block in chosen if block.place == AT_SUM}
    handles = []

    def hook(block: Block) -> Callable[..., None]:
        def seen(child: nn.Module, args: tuple[Any, ...], out: Any = None) -> None:
            z = args[0] if block.place == BEFORE else out
            if isinstance(z, Tensor):
                see(block, as_map(z.detach().clone(), child))  # what follows may write into it

        return seen

    def on_sum(found: Sum) -> None:
        block = by_sum.get((found.name, found.place))
        if block is not None:
            see(block, as_map(found.value.detach().clone(), found.module))

    wanted = {(block.module, block.place): block for block in chosen}
    for child, name in names.items():
        if (name, BEFORE) in wanted:
            handles.append(child.register_forward_pre_hook(hook(wanted[name, BEFORE])))
        if (name, BEHIND) in wanted:
            handles.append(child.register_forward_hook(hook(wanted[name, BEHIND])))
    try:
        with torch.no_grad(), evaluating(module):
            if by_sum:
                with Running(names, on_sum).watching():
                    yield
            else:
                yield
    finally:
        for handle in handles:
            handle.remove()


def as_map(z: Tensor, module: nn.Module | None = None) -> Float[Tensor, "rows channel h w"]:
    """Maps as they are, channels behind square pixels in front of them; tokens (row, token, channel) on their grid,
    without the class tokens in front.

    A module that knows its tokens has the attributes `grid` (height, width) and `prefix` (how many stand in front). Of
    others the last tokens make the largest square that there is.
    """
    if z.ndim == 4:
        last = z.shape[1] == z.shape[2] != z.shape[3]
        return rearrange(z, "b h w c -> b c h w") if last else z
    grid, prefix = getattr(module, "grid", ()), getattr(module, "prefix", None)
    if not grid or prefix is None:
        side = isqrt(z.shape[1])
        grid, prefix = (side, side), z.shape[1] - side**2
    return rearrange(z[:, prefix:], "b (h w) c -> b c h w", h=grid[0], w=grid[1])


def _residual(module: nn.Module, x: Tensor) -> tuple[Block, ...]:
    """The stem and the residual blocks; nothing where nothing is added."""
    names = names_of(module)
    sums: dict[str, dict[int, Sum]] = {}  # by module, in the order of their ends
    inside: dict[str, set[str]] = {}  # residual modules in other ones
    sizes: dict[str, int] = {}

    def on_sum(found: Sum) -> None:
        if not isinstance(found.module, Declared) and _weighs(found) and _readable(found.value.shape):
            sums.setdefault(found.name, {}).setdefault(found.place, found)
            for call in running.calls[:-1]:
                inside.setdefault(names[call.module], set()).add(found.name)

    def returned(child: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, Tensor):
            sizes[names[child]] = out.numel()

    running = Running(names, on_sum)
    handles = [child.register_forward_hook(returned) for child in running.names]
    try:
        with evaluating(module), running.watching():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    single = [name for name in sums if len(inside.get(name, ())) < SEVERAL]
    nested = {other for name in single for other in inside.get(name, ())}
    found: list[Block] = []
    for name in single:
        last = max(sums[name])
        kept = [one for one in sums[name].values() if one.value.numel() == sums[name][last].value.numel()]
        if name not in nested:
            found += [
                _block(one, len(kept), one.place == last and sizes.get(name) == one.value.numel()) for one in kept
            ]
    return (Block(STEM, STEM, found[0].module, BEFORE), *found) if found else ()


def _block(found: Sum, count: int, ends: bool) -> Block:
    name = found.name if count == 1 else f"{found.name} ({found.place + 1})"
    return Block(name, _kind(found), found.name, BEHIND if ends else AT_SUM, found.place, found.kept is not None)


def _kind(found: Sum) -> str:
    attends = any(isinstance(item, nn.MultiheadAttention) for item in found.seen)
    kinds = [ATTENTION] if attends else [kind for kind in (ATTENTION, CONVOLUTION, MLP) if kind in found.seen]
    return kinds[0] if kinds else CONVOLUTION  # of single pixels


def _weighs(found: Sum) -> bool:
    """Whether a branch with weights was added: positions of tokens are not."""
    return any(isinstance(item, str | nn.MultiheadAttention) for item in found.seen)


def _readable(shape: torch.Size) -> bool:
    return len(shape) in (3, 4) and prod(shape[2:] if len(shape) == 4 else shape[1:2]) > 1


def _plain(module: nn.Module, x: Tensor) -> tuple[Block, ...]:
    """Of networks that add nothing: the last map before each convolution, step over pixels and end."""
    found: dict[str, Block] = {}
    for root in roots(module):
        seen = root.trace() if isinstance(root, Network) else trace(root, x)
        for name in _ends(seen):
            short = name.removeprefix("features.") if isinstance(root, Network) else name
            found.setdefault(short, Block(short, CONVOLUTION, short, BEHIND))
    return tuple(found.values())


def _ends(seen: Trace) -> list[str]:
    leaves = [call for call in seen.calls if call.is_leaf]
    convolved = False
    found: list[str] = []
    for call, following in zip(leaves, [*leaves[1:], None], strict=True):
        convolved |= isinstance(call.module, CONVOLUTIONS)
        is_map = len(call.output_shape) == 4 and prod(call.output_shape[2:]) > 1
        if not convolved or not is_map:
            continue
        if following is None or _reads(following):
            found.append(call.name)
    return list(dict.fromkeys(found))


def _reads(call: Call) -> bool:
    """Whether a block before it ends here."""
    stops = isinstance(call.module, CONVOLUTIONS) or len(call.output_shape) != 4
    return stops or call.subsamples or call.collapses
