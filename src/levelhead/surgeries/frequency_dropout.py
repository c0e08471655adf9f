"""Frequency dropout: random filters behind convolutions, so that a network leans on no one band of frequencies."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.behind_convolutions import WHERE, Site, behind_convolutions
from levelhead.layers.frequency_dropout import (
    RESAMPLE,
    TYPE_PER,
    Draw,
    Family,
    FrequencyFilters,
    SampledFrequencyFilters,
    SharedSeeds,
)
from levelhead.layers.frequency_filters import FAMILIES, LARGEST_REFERENCE_LOG, LOG_MODES
from levelhead.layers.paced_filter import PADDINGS, PacedFilter
from levelhead.network import Network
from levelhead.types import Reference

EVAL_MODES = ("frozen", "identity", "sample")


@dataclass(frozen=True)
class FrequencyDropout:
    """y_c = k_c * x_c behind convolutions, k_c a 3 x 3 kernel of random width; the identity with probability p.

    One family of kernels is drawn for the whole network, and for each channel a width, uniform in its range. Nothing
    is learned and no parameter added. Both convolutions of a basic block share their widths; shortcuts stay.

    filters        what is drawn from: ("gaussian", "log", "gabor") is the paper's FD-RF, ("gaussian",) its FD-GF.
    gaussian_sigma, log_sigma, gabor_sigma  ranges of the widths, in pixels (see `layers.frequency_filters`).
    gaussian_p, log_p, gabor_p              shares of channels that are left as they are.
    kernel_size    odd.
    log_mode       "reference": the Laplacian of Gaussian over its sum, which blurs for most widths; size 3 alone.
                   "proper": the identity plus a zero-sum one, which sharpens.
    type_per       "network": one family for all layers a draw, as published. "layer": each layer its own.
    resample       "epoch", as published, or "step".
    eval_mode      "frozen"    prediction goes through the filters of the last step, as in the authors' code.
                   "identity"  through none. BatchNorm's statistics are those of filtered maps: see
                               `RecalibratedBatchNorm`.
                   "sample"    through new ones for each of num_samples passes, which make a mixture.
    num_samples    draws at prediction, for "sample".
    where          "convolutions"  behind all convolutions of the main path.
                   "stages"        behind the second convolution at each size of map (published for VGG).
                   "early"         in the stem and the first stage (published for pre-activation networks).
    shortcuts      filter the convolutions of shortcuts, too.
    tie            layers of one block with equally many channels share their widths.
    padding        "zero", as published, or "replicate", which leaves borders as bright as they are.
    anneal         (first, last) epochs, from 0, over which the share of filtered channels falls to none. Widths are
                   kept: on its way to zero a Laplacian would sharpen most.

    Behind a norm-less convolution nothing absorbs the gain, up to 3, of a Gabor kernel. Raises NoLayerReplaced where
    the network convolves no map.

    Islam & Glocker, arXiv 2209.09844.
    """

    reference: ClassVar[Reference] = Reference(
        "Islam and Glocker",
        2022,
        arxiv="2209.09844",
        title="Frequency Dropout: Feature-Level Regularization via Randomized Filtering",
    )
    filters: tuple[str, ...] = FAMILIES
    gaussian_sigma: tuple[float, float] = (0.2, 1.0)
    log_sigma: tuple[float, float] = (0.2, 3.0)
    gabor_sigma: tuple[float, float] = (0.0, 1.0)
    gaussian_p: float = 0.4
    log_p: float = 0.5
    gabor_p: float = 0.8
    kernel_size: int = 3
    log_mode: str = "reference"
    type_per: str = "network"
    resample: str = "epoch"
    eval_mode: str = "frozen"
    num_samples: int = 10
    where: str = "convolutions"
    shortcuts: bool = False
    tie: bool = True
    padding: str = "zero"
    anneal: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        choices = {
            "log_mode": LOG_MODES,
            "type_per": TYPE_PER,
            "resample": RESAMPLE,
            "eval_mode": EVAL_MODES,
            "where": WHERE,
            "padding": PADDINGS,
        }
        for name, known in choices.items():
            chosen = getattr(self, name)
            if chosen not in known:
                raise ValueError(
                    f"FrequencyDropout: {name} must be one of {', '.join(map(repr, known))}; got {chosen!r}"
                )
        if not self.filters or not set(self.filters) <= set(FAMILIES) or len(set(self.filters)) < len(self.filters):
            raise ValueError(
                f"FrequencyDropout: filters wants some of {', '.join(map(repr, FAMILIES))}, each once; "
                f"got {self.filters}"
            )
        for name in FAMILIES:
            low, high = getattr(self, f"{name}_sigma")
            if not 0 <= low <= high:
                raise ValueError(f"FrequencyDropout: {name}_sigma wants 0 <= smallest <= largest, got {(low, high)}")
            if not 0 <= getattr(self, f"{name}_p") <= 1:
                raise ValueError(f"FrequencyDropout: {name}_p must be in [0, 1], got {getattr(self, f'{name}_p')}")
        if self.kernel_size < 3 or self.kernel_size % 2 == 0:
            raise ValueError(f"FrequencyDropout: kernel_size must be odd and at least 3, got {self.kernel_size}")
        if self.kernel_size > LARGEST_REFERENCE_LOG and "log" in self.filters and self.log_mode == "reference":
            raise ValueError(
                f"FrequencyDropout: kernel_size {self.kernel_size} wants log_mode='proper': the sum by which "
                "'reference' divides comes near zero for some widths"
            )
        if self.num_samples < 1:
            raise ValueError(f"FrequencyDropout: num_samples must be at least 1, got {self.num_samples}")
        if self.anneal is not None and not 0 <= self.anneal[0] < self.anneal[1]:
            raise ValueError(f"FrequencyDropout: anneal wants epochs 0 <= first < last, got {self.anneal}")

    @property
    def exact_at_rest(self) -> bool:
        """Whether outputs are the original network's where nothing draws; the doctor holds it to that."""
        return self.eval_mode != "frozen"

    def __call__(self, network: Network) -> Network:
        """The network with filters behind its convolutions, found by running one example."""
        sites, left = behind_convolutions(network.trace(), where=self.where, shortcuts=self.shortcuts)
        behind = {site.name: site for site in sites}
        names: dict[nn.Module, str] = {}
        shared = SharedSeeds()

        def match(name: str, module: nn.Module) -> bool:
            names[module] = name
            return name in behind

        def make(module: nn.Module) -> nn.Module:
            site = behind[names[module]]
            return Around(module, after=self.layer(site, shared, leads=site == sites[0]))

        new = network.replace(match, make, inside=True, author="FrequencyDropout", skipped=left)
        return new.declare(num_samples=self.num_samples) if self.eval_mode == "sample" else new

    def layer(self, site: Site, shared: SharedSeeds, *, leads: bool) -> PacedFilter:
        """The layer behind one convolution."""
        families = {name: self.family(name) for name in self.filters}
        draw = Draw(families, self.resample, self.type_per, self.log_mode, self.anneal)
        group = site.group if self.tie else site.name
        if self.eval_mode == "sample":
            return SampledFrequencyFilters(
                site.channels,
                draw,
                group=group,
                size=self.kernel_size,
                padding=self.padding,
                shared=shared,
                leads=leads,
            )
        stored = self.eval_mode == "frozen"
        return FrequencyFilters(
            site.channels, draw, group=group, size=self.kernel_size, padding=self.padding, stored=stored
        )

    def family(self, name: str) -> Family:
        """How the widths of one family are drawn."""
        smallest, largest = getattr(self, f"{name}_sigma")
        return Family(smallest, largest, getattr(self, f"{name}_p"))
