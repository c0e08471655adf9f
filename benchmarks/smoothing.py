"""Filters before steps over pixels, beside antialiased-cnns and the FFT form of FLC pooling, and what they cost a fit.

Forward and backward of one layer on the three maps that a ResNet-18 steps over, 64 images, one thread: "imagenet" maps
are 64 x 56 x 56, 128 x 28 x 28 and 256 x 14 x 14, "cifar" maps 64 x 32 x 32, 128 x 16 x 16 and 256 x 8 x 8. Ours are
laid out channels-last, as in all our networks; the rival runs in both layouts. Then a training step (forward, backward,
SGD) of a ResNet-18 on 16 images of 32 x 32 after a surgery, beside the same network without: the ratio less 1 is what
the surgery costs.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Contest, Rival
from levelhead.backbones.resnet import ResNet
from levelhead.declared import Pace, Paced
from levelhead.layers.blur_pool import BlurPool2d
from levelhead.layers.flc_pool import FLCPool2d
from levelhead.layers.smooth import Smooth
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network, Surgery, build
from levelhead.surgeries.alias_free import AliasFree
from levelhead.surgeries.blur_pool import BlurPool
from levelhead.surgeries.curriculum_by_smoothing import CurriculumBySmoothing
from levelhead.surgeries.flc_pooling import FLCPooling
from levelhead.surgeries.frequency_dropout import FrequencyDropout
from levelhead.surgeries.msa_tail import MSATail
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing

NEEDS = ("antialiased_cnns",)
MAPS = {
    "imagenet": ((64, 56), (128, 28), (256, 14)),  # channels, pixels a side
    "cifar": ((64, 32), (128, 16), (256, 8)),
}
BATCH, QUICK_BATCH = 64, 2
STEP_BATCH, STEPS_A_TURN = 16, 2
LAYOUTS = {"": torch.contiguous_format, "_channels_last": torch.channels_last}
SURGERIES: dict[str, Surgery] = {
    "spatial_smoothing": SpatialSmoothing(),
    "blur_pool": BlurPool(),
    "flc_pooling": FLCPooling(),
    "frequency_dropout": FrequencyDropout(),
    "curriculum_by_smoothing": CurriculumBySmoothing(),
    "alias_free_2_blocks": AliasFree(blocks=2),
    "alias_free": AliasFree(),
    "msa_tail": MSATail(),
}
SIGNATURE = Signature((3, 32, 32), 10, Categorical(10), (0.5,) * 3, (0.25,) * 3)


def contests(*, quick: bool) -> Iterator[Contest]:
    """The layers on both kinds of maps, then the surgeries."""
    batch = QUICK_BATCH if quick else BATCH
    installed = all(find_spec(name) for name in NEEDS)
    for kind, maps in MAPS.items():
        shapes = [(batch, channels, size, size) for channels, size in maps]
        # Filter and stride of theirs, behind the same bounded activations where ours have them.
        yield layer_contest(
            f"smooth_{kind}",
            shapes,
            lambda _: Smooth("none", rectify=False),
            box if installed else None,
            "2 taps, stride 1",
        )
        yield layer_contest(
            f"smooth_tanh_{kind}",
            shapes,
            lambda _: Smooth(rectify=False),
            (lambda channels: nn.Sequential(Bounded(), box(channels))) if installed else None,
            "10 tanh(x / 10), 2 taps, stride 1",
        )
        yield layer_contest(
            f"blur_pool_{kind}", shapes, lambda _: BlurPool2d(4), rival if installed else None, "4 taps, stride 2"
        )
        yield layer_contest(
            f"flc_pool_{kind}",
            shapes,
            lambda _: FLCPool2d(),
            lambda _: ByFFT(),
            "fft2, shift, crop, shift, ifft2, real",
            needs=(),
        )
    yield from surgery_contests(quick=quick)


def layer_contest(
    name: str,
    shapes: Sequence[tuple[int, ...]],
    ours: Callable[[int], nn.Module],
    theirs: Callable[[int], nn.Module] | None,
    what: str,
    *,
    needs: tuple[str, ...] = NEEDS,
) -> Contest:
    """Forward and backward on maps of some shapes: ours channels-last, theirs in both layouts."""

    def passes(make: Callable[[int], nn.Module], layout: torch.memory_format) -> Callable[[], object]:
        work = []
        for shape in shapes:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
            layer = make(shape[1])
            work.append((layer, x.requires_grad_(), torch.randn_like(layer(x))))

        def run() -> object:
            for layer, x, gradient in work:
                x.grad = None
                layer(x).backward(gradient)
            return None

        return run

    rivals = {
        name + suffix: Rival(
            passes(theirs, layout) if theirs is not None else lambda: None,
            needs=needs,
            what=f"{what}{suffix.replace('_', ' ')}",
        )
        for suffix, layout in LAYOUTS.items()
    }
    return Contest(passes(ours, torch.channels_last), rivals)


def rival(channels: int) -> nn.Module:
    """The rival's layer with its default of four taps, stride 2."""
    made: nn.Module = import_module(NEEDS[0]).BlurPool(channels, filt_size=4, stride=2)
    return made


def box(channels: int) -> nn.Module:
    """The rival's layer as a 2 x 2 box of stride 1."""
    made: nn.Module = import_module(NEEDS[0]).BlurPool(channels, filt_size=2, stride=1)
    return made


class Bounded(nn.Module):
    """10 tanh(x / 10)."""

    def forward(self, x: Tensor) -> Tensor:
        """In (-10, 10)."""
        return 10 * torch.tanh(x / 10)


class ByFFT(nn.Module):
    """FLC pooling as its paper writes it."""

    def forward(self, x: Tensor) -> Tensor:
        """The low half of the frequencies of each axis; sides are multiples of four, or halve to an odd number."""
        (h, w), (m, n) = x.shape[2:], (-(-s // 2) for s in x.shape[2:])
        spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"), dim=(-2, -1))
        top, left = h // 2 - m // 2, w // 2 - n // 2
        kept = torch.fft.ifftshift(spectrum[..., top : top + m, left : left + n], dim=(-2, -1))
        return torch.fft.ifft2(kept, norm="forward").real


def surgery_contests(*, quick: bool) -> Iterator[Contest]:
    """A training step after each surgery, beside one without."""
    backbone = ResNet(depth=8) if quick else ResNet(depth=18)
    rows, steps = (4, 1) if quick else (STEP_BATCH, STEPS_A_TURN)
    torch.manual_seed(0)
    plain = build(backbone, (), SIGNATURE)
    x = torch.rand(rows, *SIGNATURE.input_shape)
    y = torch.arange(rows) % SIGNATURE.num_outputs
    for name, surgery in SURGERIES.items():
        made = build(backbone, (surgery,), SIGNATURE)
        yield Contest(
            training(made, x, y, steps),
            {f"step_{name}": Rival(training(plain, x, y, steps), what="the same step of the network without surgery")},
        )


def training(network: Network, x: Tensor, y: Tensor, steps: int) -> Callable[[], object]:
    """Some training steps; layers that change as training goes on are told of every one."""
    network.train()
    paced = [layer for layer in network.modules() if isinstance(layer, Paced)]
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    epochs = count()

    def run() -> object:
        for _ in range(steps):
            epoch = next(epochs)
            for layer in paced:
                layer.pace(Pace(epoch, 0, epoch, epoch))
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(network(x)[0], y).backward()
            optimiser.step()
        return None

    return run
