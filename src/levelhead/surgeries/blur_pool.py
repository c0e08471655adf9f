"""BlurPool: a binomial filter wherever a network steps over pixels, behind the activation of what stepped before."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.blur_pool import MOST_TAPS, PADDINGS, BlurPool2d
from levelhead.layers.data_flow import Flow, Spot, data_flow
from levelhead.layers.downsampling import Step, exchanged, make_dense, steps_over_pixels
from levelhead.network import Network
from levelhead.types import Reference

STEM = "it reads the image: pass stem=True to step behind it"
KIND = "it is a {kind}, and {field} is False"
PATCHES = "its windows do not overlap: a patch embedding reads pixels, it does not sample a map"
WIDE = "it averages {kernel} pixels, more than the filter's {taps}: a filter of its own"


@dataclass
class _Change:
    """What happens to one module: its stride, and what stands in front of it and behind."""

    dense: bool = False
    before: list[nn.Module] = field(default_factory=list)
    after: list[nn.Module] = field(default_factory=list)


@dataclass(frozen=True)
class BlurPool:
    """Layers that step over pixels become dense, and a blur takes the step later; no parameters, all weights kept.

    conv / 2, norm, ReLU   ->  conv / 1, norm, ReLU, blur / 2: behind the ReLU, hence in front of the next convolution
    max-pool(k) / 2        ->  max-pool(k) / 1, blur / 2; right behind a strided stem max-pool(2) / 1, as published
    average pool / 2       ->  blur / 2
    1 x 1 / 2 shortcut     ->  blur / 2, 1 x 1 / 1

    The blur is [1, 3, 3, 1] / 8 along both axes, or another row of Pascal's triangle (`layers.blur_pool`). Where the
    activation ends is found by following the map through one example, functions included. Where several read it that
    are no modules, the blur stands right behind the convolution.

    taps          1 (plain steps) to 7.
    padding       of the blur: "reflect", "replicate", "zero" or "circular".
    convolutions  do so with strided convolutions.
    pools         and with strided max and average pools.
    stem          and with a strided convolution that reads the image, as the paper's slower variant does.

    Dense layers cost four times as much as strided ones. A trained network needs fine-tuning. Raises NoLayerReplaced
    where nothing steps over pixels.

    Zhang, arXiv 1904.11486.
    """

    reference: ClassVar[Reference] = Reference(
        "Zhang", 2019, arxiv="1904.11486", title="Making Convolutional Networks Shift-Invariant Again"
    )
    taps: int = 4
    padding: str = "reflect"
    convolutions: bool = True
    pools: bool = True
    stem: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.taps <= MOST_TAPS:
            raise ValueError(f"BlurPool: taps must be from 1 to {MOST_TAPS}, got {self.taps}")
        if self.padding not in PADDINGS:
            raise ValueError(f"BlurPool: padding must be one of {', '.join(map(repr, PADDINGS))}; got {self.padding!r}")
        if not self.convolutions and not self.pools:
            raise ValueError("BlurPool: convolutions and pools are both False; nothing would change")

    def __call__(self, network: Network) -> Network:
        """The network with a blur at each step, found by running one example."""
        steps = steps_over_pixels(network.trace())
        left = dict(steps.left)
        makers: dict[str, Callable[[nn.Module], nn.Module]] = {}
        changes: dict[str, _Change] = defaultdict(_Change)
        flow = data_flow(network)
        for step in steps.found:
            reason = self.reason(step)
            if reason:
                left[step.name] = reason
            elif step.convolves:
                changes[step.name].dense = True
                for spot in self.spots(step, flow):
                    place = changes[spot.name]
                    (place.after if spot.behind else place.before).append(self.layer(step))
            else:
                makers[step.name] = partial(self.pool, step)
        makers |= {name: partial(changed, change) for name, change in changes.items()}
        return exchanged(network, makers, author="BlurPool", skipped=tuple(left.items()))

    def reason(self, step: Step) -> str:
        """Why a step is left; empty where it is not."""
        if step.is_patches:
            return PATCHES
        if not self.stem and step.reads_image:
            return STEM
        if not (self.convolutions if step.convolves else self.pools):
            return KIND.format(kind=step.kind, field="convolutions" if step.convolves else "pools")
        if step.kind == "average" and max(step.kernel) > self.taps:
            return WIDE.format(kernel=step.kernel, taps=self.taps)
        return ""

    def spots(self, step: Step, flow: Flow) -> tuple[Spot, ...]:
        """Where the blur of a strided convolution stands."""
        alone = Spot(step.name, behind=True)
        if flow.times[step.name] > 1:
            return (alone,)
        value, activated = flow.after_activation(step.name)
        if not activated:
            return (Spot(step.name, behind=step.kernel != (1, 1)),)
        return flow.seen_by(value, flow.call_of(step.name)) or (alone,)

    def pool(self, step: Step, module: nn.Module) -> nn.Module:
        """The blur, and in front of it a max-pool without its stride."""
        if step.kind == "average":
            return BlurPool2d(self.taps, stride=step.stride, margin=step.margin, padding=self.padding)
        if step.ends_stem and step.dilation == (1, 1):
            smallest = (min(2, step.kernel[0]), min(2, step.kernel[1]))
            step = step._replace(dense=(1 - smallest[0], 1 - smallest[1]))
            return nn.Sequential(nn.MaxPool2d(smallest, stride=1), self.layer(step))
        return nn.Sequential(make_dense(module), self.layer(step))

    def layer(self, step: Step) -> BlurPool2d:
        """The blur that makes as many rows and columns of a dense map as the step did."""
        margin = (step.margin[0] - step.dense[0], step.margin[1] - step.dense[1])
        return BlurPool2d(self.taps, stride=step.stride, margin=margin, padding=self.padding)


def changed(change: _Change, module: nn.Module) -> nn.Module:
    """A module without its stride, with blurs around it."""
    new = make_dense(module) if change.dense else module
    before, after = (nn.Sequential(*layers) if layers else None for layers in (change.before, change.after))
    return new if before is None and after is None else Around(new, before=before, after=after)
