"""Residual blocks, stages and stems for images: He et al. 2015 (arXiv 1512.03385) and 2016 (arXiv 1603.05027).

Every operation but the sum is a module with one parent, so that a surgery can see and replace it. A shortcut that
changes shape is a strided 1 x 1 convolution (option B of the paper), not slicing and zero padding (option A): a
slice is downsampling that no surgery could find.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.drop_path import DropPath
from levelhead.layers.norms import norm

BOTTLENECK_EXPANSION = 4


class Design(NamedTuple):
    """What all blocks of a network share: bottlenecks or basic blocks, pre- or post-activation, the kind of norm."""

    bottleneck: bool
    preact: bool
    norm: str

    def out(self, width: int) -> int:
        """Channels that leave a block of this width."""
        return width * BOTTLENECK_EXPANSION if self.bottleneck else width


class PostActivation(nn.Module):
    """act(body(x) + shortcut(x)), body = conv norm act ... conv norm."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch out g v"]:
        """The block's output, non-negative."""
        return self.act(self.body(x) + self.shortcut(x))


class PreActivation(nn.Module):
    """body(z) + shortcut(x or z), z = entry(x), entry = norm act: a projection reads z, an identity reads x."""

    def __init__(self, entry: nn.Module, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.entry = entry
        self.body = body
        self.shortcut = shortcut
        self.projects = not isinstance(shortcut, nn.Identity)

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch out g v"]:
        """The block's output; the last norm and activation of the network stand behind its last stage."""
        z = self.entry(x)
        return self.body(z) + self.shortcut(z if self.projects else x)


def conv(channels: int, out: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias (a norm follows) that keeps the size, divided by `stride` and rounded up."""
    return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)


def block(
    channels: int, width: int, *, stride: int, design: Design, drop_path: float = 0.0
) -> PostActivation | PreActivation:
    """One residual block from `channels` to `design.out(width)` channels.

    Basic: 3x3 (strided), 3x3. Bottleneck: 1x1, 3x3 (strided: the "v1.5" of common implementations), 1x1. With a rate
    `drop_path` the body is left out at random while training.
    """
    kernels, strided = ((1, 3, 1), 1) if design.bottleneck else ((3, 3), 0)
    out = design.out(width)
    sizes = (channels, *(width,) * (len(kernels) - 1), out)
    body: OrderedDict[str, nn.Module] = OrderedDict()
    for i, kernel in enumerate(kernels):
        last = i + 1 == len(kernels)
        if design.preact and i > 0:
            body |= {f"norm{i + 1}": norm(design.norm, sizes[i]), f"act{i + 1}": nn.ReLU()}
        body[f"conv{i + 1}"] = conv(sizes[i], sizes[i + 1], kernel=kernel, stride=stride if i == strided else 1)
        if not design.preact:
            body[f"norm{i + 1}"] = norm(design.norm, sizes[i + 1])
        if not design.preact and not last:
            body[f"act{i + 1}"] = nn.ReLU()
    if drop_path:
        body["drop"] = DropPath(drop_path)
    shortcut: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1 or channels != out:
        shortcut["conv"] = conv(channels, out, kernel=1, stride=stride)
        if not design.preact:
            shortcut["norm"] = norm(design.norm, out)
    kept = nn.Sequential(shortcut) if shortcut else nn.Identity()
    if not design.preact:
        return PostActivation(nn.Sequential(body), kept)
    entry = nn.Sequential(OrderedDict(norm=norm(design.norm, channels), act=nn.ReLU()))
    return PreActivation(entry, nn.Sequential(body), kept)


def stem(kind: str, channels: int, width: int, *, design: Design) -> nn.Sequential:
    """What stands before the first stage: "small" 3x3 convolution; "imagenet" 7x7 / 2 and 3x3 / 2 max-pooling.

    A pre-activation network has no norm and activation here: its first block begins with them.
    """
    small = kind == "small"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = conv(channels, width, kernel=3 if small else 7, stride=1 if small else 2)
    if not design.preact:
        layers |= {"norm": norm(design.norm, width), "act": nn.ReLU()}
    if not small:
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(layers)


class Spot(NamedTuple):
    """Where a block stands: in which stage, at which place of it (both from 0), and how it changes the map."""

    stage: int
    place: int
    channels: int
    width: int
    stride: int


def residual_stages(
    channels: int,
    *,
    stem_kind: str,
    stem_width: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    design: Design,
    make: Callable[[Spot], nn.Module] | None = None,
) -> tuple[OrderedDict[str, nn.Module], int]:
    """Stages stem, stage1, ..., (final,) pool, flatten, and the number of features that come out.

    widths, blocks  of each stage; all stages but the first begin by striding. `final` is the norm and activation that
                    a pre-activation network needs behind its last block.
    make            what makes the block of a spot, with `design.out(width)` channels; None for `block`.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=stem(stem_kind, channels, stem_width, design=design))
    reached = stem_width
    for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        made: list[nn.Module] = []
        for place in range(count):
            spot = Spot(i, place, reached, width, stride=2 if i > 0 and place == 0 else 1)
            made.append(block(reached, width, stride=spot.stride, design=design) if make is None else make(spot))
            reached = design.out(width)
        stages[f"stage{i + 1}"] = nn.Sequential(*made)
    if design.preact:
        stages["final"] = nn.Sequential(OrderedDict(norm=norm(design.norm, reached), act=nn.ReLU()))
    stages |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return stages, reached
