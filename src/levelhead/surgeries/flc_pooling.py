"""FrequencyLowCut pooling in every place where a network steps over pixels."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.data_flow import Flow, data_flow
from levelhead.layers.downsampling import Step, exchanged, make_dense, steps_over_pixels
from levelhead.layers.flc_pool import IMPLEMENTATIONS, LEGACY, NYQUIST, PADS, WINDOWS, FLCPool2d
from levelhead.network import Network
from levelhead.types import Reference

STEM = "it belongs to the stem, and stem is False"
KIND = "it is a {kind}, and {field} is False"
PATCHES = "its windows do not overlap: a patch embedding reads pixels, it does not sample a map"
PADDED = "it pads by {mode!r}, and its size at stride 1 would not be kept: use zeros, or a padding that keeps the size"


@dataclass(frozen=True)
class FLCPooling:
    """Every strided convolution becomes FLC pooling and the same convolution at stride 1; every strided pool, FLC.

    FLC pooling keeps the low half of the frequencies of each axis and none above (`layers.flc_pool`): what follows is
    free of aliases. The weights stay, there are no parameters, and the sizes of all maps are kept. 1 x 1 shortcuts too,
    with one pooling for all convolutions that read one map. The stem of ImageNet networks becomes FLC, 7 x 7 at stride
    1, norm, activation, FLC. Pools of all pixels stay.

    convolutions  do so with strided convolutions.
    pools         and with strided max and average pools.
    stem          and with what reads the image, and a pool right behind it.
    nyquist, pad, window, impl, legacy  of `layers.flc_pool.FLCPool2d`: window="hamming" with pad None, "one" or
                  "double" is ASAP (arXiv 2307.09804), which rings less.

    A convolution whose padding does not keep the size (a 2 x 2 at stride 2) is padded to do so. A trained network needs
    fine-tuning afterwards. Raises NoLayerReplaced where nothing steps over pixels.

    Grabinski, Jung, Keuper & Keuper, arXiv 2204.00491.
    """

    reference: ClassVar[Reference] = Reference(
        "Grabinski et al.",
        2022,
        arxiv="2204.00491",
        title="FrequencyLowCut Pooling - Plug & Play against Catastrophic Overfitting",
    )
    convolutions: bool = True
    pools: bool = True
    stem: bool = True
    nyquist: str = "average"
    pad: str | None = None
    window: str | None = None
    impl: str = "auto"
    legacy: str | None = None

    def __post_init__(self) -> None:
        allowed = {
            "nyquist": NYQUIST,
            "pad": PADS,
            "window": WINDOWS,
            "impl": IMPLEMENTATIONS,
            "legacy": LEGACY,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"FLCPooling: {name} must be one of {', '.join(map(repr, values))}; got {getattr(self, name)!r}"
                )
        if not self.convolutions and not self.pools:
            raise ValueError("FLCPooling: convolutions and pools are both False; nothing would change")
        if self.impl == "fft" and (self.pad or self.window or self.legacy):
            raise ValueError("FLCPooling: impl='fft' is for pad, window and legacy None; use impl='matrix'")

    def __call__(self, network: Network) -> Network:
        """The network with FLC pooling at each step, found by running one example."""
        steps = steps_over_pixels(network.trace())
        left = dict(steps.left)
        makers: dict[str, Callable[[nn.Module], nn.Module]] = {}
        convolutions = []
        for step in steps.found:
            reason = self.reason(step, network.get_submodule(step.name))
            if reason:
                left[step.name] = reason
            elif step.convolves:
                makers[step.name] = partial(self.convolution, step)
                convolutions.append(step)
            else:
                makers[step.name] = partial(self.pool, step)
        makers |= self.shared(convolutions, data_flow(network), set(makers))
        return exchanged(network, makers, author="FLCPooling", skipped=tuple(left.items()))

    def shared(self, steps: list[Step], flow: Flow, taken: set[str]) -> dict[str, Callable[[nn.Module], nn.Module]]:
        """One pooling for all convolutions that read the same map, as a block's first one and its shortcut do."""
        reading: dict[int, list[Step]] = defaultdict(list)
        for step in steps:
            if flow.times[step.name] == 1 and step.margin == (0, 0):
                reading[flow.passed[flow.call_of(step.name)].reads].append(step)
        makers: dict[str, Callable[[nn.Module], nn.Module]] = {}
        for value, together in reading.items():
            spot = flow.one_spot(value, {step.name for step in together}) if len(together) > 1 else None
            if spot is None or spot.name in taken or len({step.stride for step in together}) > 1:
                continue
            side = "after" if spot.behind else "before"
            makers |= {step.name: make_dense for step in together}
            makers[spot.name] = partial(around, side, self.layer(together[0]))
        return makers

    def reason(self, step: Step, module: nn.Module) -> str:
        """Why a step is left; empty where it is not."""
        if not self.stem and (step.reads_image or step.ends_stem):
            return STEM
        if not (self.convolutions if step.convolves else self.pools):
            return KIND.format(kind=step.kind, field="convolutions" if step.convolves else "pools")
        if step.is_patches:
            return PATCHES
        mode = getattr(module, "padding_mode", "zeros")
        return PADDED.format(mode=mode) if step.convolves and step.margin != (0, 0) and mode != "zeros" else ""

    def convolution(self, step: Step, module: nn.Module) -> Around:
        """FLC, and the convolution at stride 1, padded so that it keeps the size."""
        before: nn.Module = self.layer(step)
        if step.margin != (0, 0):
            down, right = (-margin for margin in step.margin)
            before = nn.Sequential(before, nn.ZeroPad2d((right // 2, right - right // 2, down // 2, down - down // 2)))
        return Around(make_dense(module), before=before)

    def pool(self, step: Step, module: nn.Module) -> FLCPool2d:
        """FLC in place of a pool."""
        return self.layer(step)

    def layer(self, step: Step) -> FLCPool2d:
        """The pooling that makes as many rows and columns as the step did."""
        return FLCPool2d(
            step.stride,
            margin=step.margin,
            nyquist=self.nyquist,
            pad=self.pad,
            window=self.window,
            impl=self.impl,
            legacy=self.legacy,
        )


def around(side: str, layer: FLCPool2d, module: nn.Module) -> Around:
    """A module with the pooling on one side."""
    return Around(module, before=layer) if side == "before" else Around(module, after=layer)
