"""Alias-free layers: ReLU, steps over pixels and max-pooling that fold less of the spectrum back."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from levelhead.layers.aa_conv import ORDERS, AAConv2d
from levelhead.layers.aa_max_pool import AAMaxPool2d
from levelhead.layers.around import Around
from levelhead.layers.blocks_in_order import block_of_each_call
from levelhead.layers.blur_relu import BlurReLU, check_low_and_up
from levelhead.layers.downsampling import Step, steps_over_pixels
from levelhead.layers.functional_relus import functional_relus
from levelhead.layers.kaiser import check_taps
from levelhead.layers.margins import check_margins
from levelhead.layers.quantile_relu import QuantileReLU, check_share
from levelhead.layers.smooth import Smooth
from levelhead.network import Network
from levelhead.probe import Trace
from levelhead.types import Reference

CONVS = ("none", *ORDERS)
RELUS = ("none", "quantile", "blur", "quantile+blur")
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
FUNCTIONAL = "its code calls ReLU as a function: make it an nn.ReLU"
ON_VECTORS = "this ReLU also acts on what is no map: give each use an nn.ReLU of its own"
SHARED = "it is also called behind the first {blocks} blocks: give each use a module of its own"
AVERAGE = "average pooling has a low-pass filter of its own"
PATCHES = "its windows tile the image: patches, not samples of a map"
ODD_POOL = "its window, stride or dilation is not the same along both axes, or dilated"

Make = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class AliasFree:
    """What aliases, in its place what aliases less; nothing is trained, and blur strengths follow from what comes next.

    A step of S reads a map without frequencies above 1 / (2 S); ReLU and max-pooling act on a grid twice as fine,
    between two low-pass filters; ReLU lifts channels that would lose more than a share q of their pixels. Small and
    single-step attacks do less harm (arXiv 2212.11760); strong ones still succeed, and clean accuracy falls.

    blocks        the first so many are changed, as the paper counts: of a VGG what max-pools separate, of a ResNet the
                  stem, then the stages (see `layers.blocks_in_order`). None for all: AA(5) there. AT + AA(2) has 2.
    conv          "filter_first", "conv_first" (see `layers.aa_conv`) or "none", of strided convolutions, shortcuts too.
    relu          "quantile+blur" (AA-ReLU), "blur", "quantile" or "none", of every nn.ReLU on maps.
    pool          of every strided nn.MaxPool2d.
    initial_blur  the paper's control: [1, 4, 6, 4, 1] / 16 both ways in front of the first convolution, in addition.
    q, low, up    largest share of clipped pixels, L and U; see `layers.blur_relu.BlurReLU`.
    taps          of all filters, odd; None: 3, 5 or 7, by the size of each map.
    padding       "zero" (the authors'), "reflect", "replicate" or "circular", of all filters.
    level         interpolate constants exactly; see `layers.finer_grid`.

    Every learned tensor stays; a trained network wants fine-tuning. ReLUs called as functions, other activations and
    average pools are left, and noted where they step over pixels or are ReLUs. Raises NoLayerReplaced where nothing is
    to be changed.

    Rodríguez-Muñoz & Torralba, arXiv 2212.11760.
    """

    reference: ClassVar[Reference] = Reference(
        "Rodríguez-Muñoz and Torralba", 2022, arxiv="2212.11760", title="Aliasing is a Driver of Adversarial Attacks"
    )
    blocks: int | None = None
    conv: str = "filter_first"
    relu: str = "quantile+blur"
    pool: bool = True
    initial_blur: bool = False
    q: float = 0.4
    low: int = 2
    up: int = 2
    taps: int | None = None
    padding: str = "zero"
    level: bool = False

    def __post_init__(self) -> None:
        for field, known in (("conv", CONVS), ("relu", RELUS)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"AliasFree: {field} must be one of {', '.join(map(repr, known))}; got {getattr(self, field)!r}"
                )
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(f"AliasFree: blocks must be at least 1, or None for all, got {self.blocks}")
        check_share("AliasFree", self.q)
        check_low_and_up("AliasFree", self.low, self.up)
        check_taps("AliasFree", self.taps)
        check_margins("AliasFree", self.padding)
        if self.conv == self.relu == "none" and not self.pool and not self.initial_blur:
            raise ValueError("AliasFree: conv='none', relu='none', pool=False and no initial_blur leave nothing to do")

    def __call__(self, network: Network) -> Network:
        """The network with its layers exchanged; they are found by running one example."""
        trace = network.trace()
        inside, beyond = self.reached(trace)
        found: dict[str, Make] = {}
        left: dict[str, str] = {}
        for places in (self.steps(trace), self.relus(trace, network)):
            for name, what in places.items():
                if name in beyond and name not in inside:
                    continue
                if name in beyond:
                    left[name] = SHARED.format(blocks=self.blocks)
                elif isinstance(what, str):
                    left[name] = what
                else:
                    found[name] = what
        if self.initial_blur:
            for name in first_convolutions(trace):
                found[name] = partial(self.behind_blur, found.get(name, lambda module: module))
        names: dict[nn.Module, str] = {}

        def match(name: str, module: nn.Module) -> bool:
            names[module] = name
            return name in found

        def make(module: nn.Module) -> nn.Module:
            return found[names[module]](module)

        return network.replace(match, make, author="AliasFree", skipped=tuple(left.items()))

    def reached(self, trace: Trace) -> tuple[set[str], set[str]]:
        """Names that are called in the first blocks, and behind them."""
        blocks = block_of_each_call(trace)
        wanted = len(trace.calls) if self.blocks is None else self.blocks
        inside = {call.name for call, block in zip(trace.calls, blocks, strict=True) if block < wanted}
        return inside, {call.name for call, block in zip(trace.calls, blocks, strict=True) if block >= wanted}

    def steps(self, trace: Trace) -> Mapping[str, Make | str]:
        """What becomes of each step over pixels: how to make it, or why it is left."""
        steps = steps_over_pixels(trace)
        found: dict[str, Make | str] = {}
        for step in steps.found:
            if step.convolves and self.conv != "none":
                found[step.name] = PATCHES if step.is_patches else partial(self.strided, step)
            elif step.kind == "max" and self.pool:
                plain = (
                    step.kernel[0] == step.kernel[1] and step.stride[0] == step.stride[1] and max(step.dilation) == 1
                )
                found[step.name] = partial(self.pooling, step) if plain else ODD_POOL
            elif step.kind == "average" and self.pool:
                found[step.name] = AVERAGE
        return found | (dict(steps.left) if self.pool or self.conv != "none" else {})

    def relus(self, trace: Trace, network: Network) -> Mapping[str, Make | str]:
        """What becomes of each ReLU that acts on maps, of more than one pixel."""
        if self.relu == "none":
            return {}
        maps: dict[str, list[bool]] = defaultdict(list)
        for call in trace.calls:
            if type(call.module) is nn.ReLU:
                maps[call.name].append(math.prod(call.pixels) > 1)
        found: dict[str, Make | str] = {
            name: self.rectifier if all(on) else ON_VECTORS for name, on in maps.items() if any(on)
        }
        names = {module: name for name, module in network.named_modules()}
        calling = functional_relus(network.features, network.trace)
        return found | {names[module]: FUNCTIONAL for module in calling}

    def strided(self, step: Step, module: nn.Module) -> nn.Module:
        """A strided convolution that aliases less."""
        return AAConv2d(module, stride=step.stride, order=self.conv, taps=self.taps, padding=self.padding)

    def pooling(self, step: Step, module: nn.Module) -> nn.Module:
        """A max-pooling that aliases less."""
        return AAMaxPool2d(
            step.kernel[0],
            step.stride[0],
            step.padding[0],
            ceil_mode=step.ceil,
            taps=self.taps,
            margin=self.padding,
            level=self.level,
        )

    def rectifier(self, module: nn.Module) -> nn.Module:
        """A ReLU that aliases less."""
        if self.relu == "quantile":
            return QuantileReLU(self.q)
        q = self.q if "quantile" in self.relu else 0.0
        return BlurReLU(self.low, self.up, q=q, taps=self.taps, padding=self.padding, level=self.level)

    def behind_blur(self, make: Make, module: nn.Module) -> nn.Module:
        """The module, changed or not, on a blurred image."""
        padding = "zero" if self.padding == "reflect" else self.padding
        return Around(make(module), before=Smooth("none", taps=BINOMIAL, padding=padding, rectify=False))


def first_convolutions(trace: Trace) -> tuple[str, ...]:
    """The first layer with kernels, and those that read the very same tensor."""
    kernels = [call for call in trace.calls if call.is_leaf and len(call.pixels) == 2 and has_kernel(call.module)]
    return tuple(dict.fromkeys(call.name for call in kernels if call.source == kernels[0].source))


def has_kernel(module: nn.Module) -> bool:
    """Whether a layer convolves maps."""
    return any(parameter.ndim >= 4 for parameter in module.parameters(recurse=False))
