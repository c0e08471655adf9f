"""What a shift is, and what the corruptions of the CIFAR-10-C / ImageNet-C family share.

A shift draws from the generator it is given, on that generator's device, in the order of the batch. So one generator
and one whole split give the same pixels again on the same machine. A generator of the CPU, carried through the batches
of a split in order, gives the pixels of the whole split whatever the batch size. CUDA generators do not promise that; a
CPU generator beside CUDA images is fine and keeps the CPU's draws.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.types import Reference

Level = TypeVar("Level")

HENDRYCKS = Reference(
    "Hendrycks and Dietterich",
    2019,
    arxiv="1903.12261",
    title="Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
)
Group = Literal["noise", "blur", "weather", "digital", "extra"]
SEVERITIES = (1, 2, 3, 4, 5)
PIECE = 250_000  # numbers that the CPU works on at once: what passes from step to step then stays in its cache
SMALL_SIDE = 84  # the constants were published for 32 and 224 pixels; their geometric mean is 85


class Shift(Protocol):
    """A known change of the inputs, in growing amounts. A frozen dataclass in a file of its own name."""

    @property
    def kind(self) -> Literal["image", "tabular"]:
        """Images are (batch, channel, height, width) in [0, 1]; tables (batch, feature) in their own units."""

    @property
    def severities(self) -> tuple[int, ...]:
        """The amounts that it knows, in growing order; 0 is the identity and is not listed."""

    def __call__(
        self, x: Float[Tensor, "batch *input"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """The shifted inputs; `x` is untouched. Raises ValueError for a severity that is neither 0 nor listed."""


class Corruption(ABC, Generic[Level]):
    """A corruption of 8-bit images: `distort` at one of five published constants, then clipped and truncated to 8 bits.

    group         which of the paper's four test categories it is of; "extra" are the four kept for validation.
    small, large  the constants of severities 1 to 5 for CIFAR-10-C (32 x 32; used up to a shorter side of 84 pixels)
                  and for ImageNet-C (224 x 224; used above). Tiny-ImageNet-C's own constants (64 x 64) are not used.
    Truncated and not rounded, as the originals' cast to uint8 does it. Arithmetic is float32, theirs float64; exact
    levels are kept exact, which their rounding sometimes lowers by one. Random numbers are torch's, not NumPy's.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES
    reference: ClassVar[Reference] = HENDRYCKS
    group: ClassVar[Group]

    small: tuple[Level, ...]
    large: tuple[Level, ...]

    def __post_init__(self) -> None:
        for name, levels in (("small", self.small), ("large", self.large)):
            if len(levels) != len(self.severities):
                raise ValueError(f"{type(self).__name__}: {name} wants {len(self.severities)} constants, got {levels}")

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Corrupt images in [0, 1] at a severity of 1 to 5; 0 returns them as they are."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        level = (self.small if min(x.shape[-2:]) <= SMALL_SIDE else self.large)[severity - 1]
        rows = max(1, PIECE // max(1, x[0].numel())) if x.device.type == "cpu" else len(x)
        out = torch.empty_like(x)
        for piece, place in zip(x.split(rows), out.split(rows), strict=True):
            truncated(self.distort(piece, level, generator), out=place)
        return out

    @abstractmethod
    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: Level, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The corruption at the constants of one severity, before clipping; never in place."""


def truncated(x: Float[Tensor, "*shape"], *, out: Float[Tensor, "*shape"] | None = None) -> Float[Tensor, "*shape"]:
    """Clipped to [0, 1] and cut down to a multiple of 1 / 255; into `out` if given."""
    # the offset keeps an exact level, k / 255, from falling to k - 1 by float32 rounding
    return torch.mul(x, 255, out=out).add_(1e-3).clamp_(0, 255).floor_().div_(255)


def check_severity(shift: Shift, severity: int) -> None:
    """Raise ValueError unless the severity is 0 or one that the shift lists."""
    if severity != 0 and severity not in shift.severities:
        listed = ", ".join(map(str, shift.severities))
        raise ValueError(f"{type(shift).__name__}: severity is one of {listed} or 0 for the identity, got {severity}")


def check_range(shift: Shift, x: Float[Tensor, "batch channel height width"]) -> None:
    """Raise ValueError unless the images lie in [0, 1]: normalised ones would give a shift of another strength."""
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{type(shift).__name__}: wants images in [0, 1], got {float(low):.3g} ... {float(high):.3g}; "
            "shift raw images, before any normalisation"
        )


def check_colours(shift: Shift, x: Float[Tensor, "batch channel height width"]) -> None:
    """Raise ValueError unless the images are grey or have three colours: what follows is defined for those alone."""
    if x.shape[1] not in (1, 3):
        raise ValueError(f"{type(shift).__name__}: wants grey or RGB images (1 or 3 channels), got {x.shape[1]}")


def standard_normal(x: Float[Tensor, "batch *rest"], generator: torch.Generator) -> Float[Tensor, "batch *rest"]:
    """Draws from N(0, 1) in the shape of x, made on the generator's device."""
    return normals(x, x[0].numel(), generator).reshape(x.shape)


def normals(x: Float[Tensor, "batch *rest"], count: int, generator: torch.Generator) -> Float[Tensor, "batch {count}"]:
    """`count` draws from N(0, 1) for each row of x, made on the generator's device."""
    # torch draws normals in blocks of 16: an example that takes whole blocks leaves the next one's draws where they are
    whole = -(-count // 16) * 16
    drawn = torch.randn(len(x), whole, generator=generator, device=generator.device, dtype=x.dtype)
    return drawn[:, :count].to(x.device)


def uniforms(x: Float[Tensor, "batch *rest"], count: int, generator: torch.Generator) -> Float[Tensor, "batch {count}"]:
    """`count` draws from U[0, 1) for each row of x, made on the generator's device."""
    return torch.rand(len(x), count, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
