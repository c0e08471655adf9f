"""What a trained network is worth without one of its units: a residual branch left out, a convolution passed by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.analyses.blocks import STEM, blocks
from levelhead.analyses.running import Running, Sum, names_of
from levelhead.probe import evaluating
from levelhead.types import CannotCompose

MODES = ("branch", "identity")


class Unit(NamedTuple):
    """Something that can be taken out of a network: a residual branch by its block, or a convolution.

    place  which of the module's sums; None for a whole module.
    """

    name: str
    kind: str
    module: str
    place: int | None


class Lesion(NamedTuple):
    """What one unit is worth: the score without it less the score of the whole."""

    unit: Unit
    score: float
    change: float


def units(
    module: nn.Module, x: Float[Tensor, "batch channel h w"], *, mode: str = "branch"
) -> tuple[tuple[Unit, ...], dict[str, str]]:
    """The units that can be taken out, in the order of execution, and those that cannot, with the reason.

    mode  "branch": the branch of every residual block whose shortcut is the identity, so that zero is left of it.
          "identity": every convolution that returns a map of the size and channels it was given, with a kernel of more
          than one pixel.
    """
    if mode not in MODES:
        raise ValueError(f"lesion: mode must be one of {', '.join(map(repr, MODES))}; got {mode!r}")
    found, left = _branches(module, x) if mode == "branch" else _convolutions(module, x)
    if not found:
        raise CannotCompose(
            f"no {'residual branch' if mode == 'branch' else 'convolution'} of this network can be taken out; "
            f"units(..., mode={MODES[mode == 'branch']!r}) looks for others"
        )
    return found, left


@contextmanager
def without(module: nn.Module, unit: Unit) -> Iterator[None]:
    """The network, or all networks of a predictor, without the unit for a while. No weight is touched.

    A residual branch is not added; a convolution returns what it was given.
    """
    names = names_of(module)
    if unit.place is None:
        handles = [child.register_forward_hook(_given) for child, name in names.items() if name == unit.module]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        return

    def on_sum(found: Sum) -> Tensor | None:
        return found.kept if (found.name, found.place) == (unit.module, unit.place) else None

    with Running(names, on_sum).watching():
        yield


def lesion_study(
    module: nn.Module,
    x: Float[Tensor, "batch channel h w"],
    score: Callable[[], float],
    *,
    mode: str = "branch",
) -> tuple[Lesion, ...]:
    """The score with each unit taken out of the trained network by itself, without training on.

    score  called once for the whole network and once for each unit, while that is out: it predicts and returns a
           number. x only shows what units there are. Afterwards the network predicts as before, to the last bit.

    Raises CannotCompose where there is no unit. Park & Kim (arXiv 2202.06709).
    """
    chosen, _ = units(module, x, mode=mode)
    whole = score()
    found = []
    for unit in chosen:
        with without(module, unit):
            value = score()
        found.append(Lesion(unit, value, value - whole))
    return tuple(found)


def _branches(module: nn.Module, x: Tensor) -> tuple[tuple[Unit, ...], dict[str, str]]:
    found: list[Unit] = []
    left: dict[str, str] = {}
    for block in blocks(module, x):
        if block.kind == STEM or block.sum is None:
            continue
        if block.whole:
            found.append(Unit(block.name, block.kind, block.module, block.sum))
        else:
            left[block.name] = "its shortcut is no identity: without the branch nothing would be as it was"
    return tuple(found), left


@torch.no_grad()
def _convolutions(module: nn.Module, x: Tensor) -> tuple[tuple[Unit, ...], dict[str, str]]:
    names = names_of(module)
    found: dict[str, Unit] = {}
    left: dict[str, str] = {}

    def look(child: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        name = names[child]
        if args[0].shape == out.shape:
            found.setdefault(name, Unit(name, "convolution", name, None))
        else:
            left[name] = "it changes the size of the map or its channels"

    wide = [c for c in names if isinstance(c, nn.Conv2d) and max(c.kernel_size) > 1]
    handles = [child.register_forward_hook(look) for child in wide]
    try:
        with evaluating(module):
            module(x[:2])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(found.values()), left


def _given(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
    return args[0]
