"""Curriculum by smoothing: features are blurred at first, and less and less as training goes on."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.behind_convolutions import WHERE, behind_convolutions
from levelhead.layers.paced_filter import PADDINGS
from levelhead.layers.smoothing_curriculum import SmoothingCurriculum
from levelhead.network import Network
from levelhead.types import Reference

EVAL_MODES = ("frozen", "identity")


@dataclass(frozen=True)
class CurriculumBySmoothing:
    """y = Gaussian(sigma) * x behind every convolution, sigma = sigma0 factor^floor(epoch / every); no parameters.

    sigma0, factor, every  width in pixels, and by what it is multiplied after how many epochs.
    kernel_size            odd.
    eval_mode              "frozen": prediction goes through the last filter, as in the authors' code; after enough
                           epochs it is the identity. "identity": through none.
    where, shortcuts, padding  as in FrequencyDropout.

    Raises NoLayerReplaced where the network convolves no map.

    Sinha, Garg & Larochelle, arXiv 2003.01367.
    """

    reference: ClassVar[Reference] = Reference(
        "Sinha, Garg and Larochelle", 2020, arxiv="2003.01367", title="Curriculum By Smoothing"
    )
    sigma0: float = 1.0
    factor: float = 0.9
    every: int = 5
    kernel_size: int = 3
    eval_mode: str = "frozen"
    where: str = "convolutions"
    shortcuts: bool = False
    padding: str = "zero"

    def __post_init__(self) -> None:
        for name, known in (("eval_mode", EVAL_MODES), ("where", WHERE), ("padding", PADDINGS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"CurriculumBySmoothing: {name} must be one of {', '.join(map(repr, known))}; "
                    f"got {getattr(self, name)!r}"
                )
        if self.sigma0 < 0:
            raise ValueError(f"CurriculumBySmoothing: sigma0 must not be negative, got {self.sigma0}")
        if not 0 < self.factor <= 1:
            raise ValueError(f"CurriculumBySmoothing: factor must be in (0, 1], got {self.factor}")
        if self.every < 1:
            raise ValueError(f"CurriculumBySmoothing: every must be at least one epoch, got {self.every}")
        if self.kernel_size < 3 or self.kernel_size % 2 == 0:
            raise ValueError(f"CurriculumBySmoothing: kernel_size must be odd and at least 3, got {self.kernel_size}")

    @property
    def exact_at_rest(self) -> bool:
        """Whether outputs are the original network's at prediction; the doctor holds it to that."""
        return self.eval_mode == "identity"

    def __call__(self, network: Network) -> Network:
        """The network with a filter behind its convolutions, found by running one example."""
        sites, left = behind_convolutions(network.trace(), where=self.where, shortcuts=self.shortcuts)
        channels = {site.name: site.channels for site in sites}
        names: dict[nn.Module, str] = {}

        def match(name: str, module: nn.Module) -> bool:
            names[module] = name
            return name in channels

        def make(module: nn.Module) -> nn.Module:
            return Around(module, after=self.layer(channels[names[module]]))

        return network.replace(match, make, inside=True, author="CurriculumBySmoothing", skipped=left)

    def layer(self, channels: int) -> SmoothingCurriculum:
        """The layer behind one convolution."""
        return SmoothingCurriculum(
            channels,
            sigma0=self.sigma0,
            factor=self.factor,
            every=self.every,
            size=self.kernel_size,
            padding=self.padding,
            stored=self.eval_mode == "frozen",
        )
