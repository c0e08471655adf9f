"""Distributions over a network's own hyper-parameters, one for each member, that training moves."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Hyper
from levelhead.types import Scalar

MIN_WIDTH = 0.5e-6  # of a learned interval, as a share of the allowed one: the authors' own
MIN_SIGMA = 1e-4
REDUCTIONS, SPACES, POINTS = ("mean", "sum"), ("lambda", "log"), ("mean", "median")


class HyperRange(NamedTuple):
    """One hyper-parameter and what it may be: low > 0, for ranges are measured in logarithms."""

    name: str
    low: float
    high: float


class Tunable(Hyper):
    """Hyper-parameters that are drawn for each row and moved by a gradient; final: LogUniformHyper, GaussianHyper.

    Coordinates are what layers read; `values` gives the settings in their own units. Its parameters want no gradient:
    who tunes them asks for it.
    """

    ranges: tuple[HyperRange, ...]
    log_low: Tensor
    log_high: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the hyper-parameters, in the order of the last axis."""
        return tuple(r.name for r in self.ranges)

    @abstractmethod
    def sample(self, num_rows: int) -> Float[Tensor, "member row hyper"]:
        """Coordinates, one draw a row, differentiable in the parameters; from torch's global stream."""

    @abstractmethod
    def entropy(self, reduction: str = "mean", space: str = "lambda") -> Scalar:
        """Entropy of the distributions in nats: over all members and hyper-parameters, their "mean" or their "sum"."""

    @abstractmethod
    def project(self) -> None:
        """Put the parameters back where they make sense, in place."""

    @abstractmethod
    def table(self) -> list[dict[str, Any]]:
        """Where the distributions are now: one row a member and hyper-parameter, in its own units."""


class LogUniformHyper(Tunable):
    """Member k draws lambda_j = exp((1 - u) log alpha_kj + u log beta_kj), u uniform on [0, 1).

    Coordinates are (log lambda - log low) / (log high - log low), in [0, 1].

    share    of the logarithmic range that the first intervals cover, around its middle; 1 is all of it.
    point    where the network predicts: at the "mean" of each interval, (beta - alpha) / (log beta - log alpha), which
             for a wide one lies near its top, or at its "median", sqrt(alpha beta).

    Wenzel et al., arXiv 2006.13570.
    """

    def __init__(
        self, ranges: Sequence[HyperRange], num_members: int, *, share: float = 1.0, point: str = "mean"
    ) -> None:
        super().__init__()
        self.ranges, self.point = checked(ranges), checked_name("point", point, POINTS)
        if not 0 < share <= 1:
            raise ValueError(f"LogUniformHyper: share must be in (0, 1], got {share}")
        low, high = logarithms(self.ranges)
        self.register_buffer("log_low", low)
        self.register_buffer("log_high", high)
        margin = (1 - share) / 2 * (high - low)
        self.log_alpha = nn.Parameter(repeat(low + margin, "h -> k h", k=num_members).clone(), requires_grad=False)
        self.log_beta = nn.Parameter(repeat(high - margin, "h -> k h", k=num_members).clone(), requires_grad=False)

    def sample(self, num_rows: int) -> Float[Tensor, "member row hyper"]:
        """See `Tunable.sample`."""
        members, count = self.log_alpha.shape
        u = torch.rand(members, num_rows, count, dtype=self.log_alpha.dtype, device=self.log_alpha.device)
        return self.coordinates((1 - u) * self.log_alpha[:, None] + u * self.log_beta[:, None])

    def coordinates(self, logs: Float[Tensor, "*row hyper"]) -> Float[Tensor, "*row hyper"]:
        """Coordinates of logarithms of settings."""
        return (logs - self.log_low) / (self.log_high - self.log_low)

    def values(self, coordinates: Float[Tensor, "*row hyper"]) -> Float[Tensor, "*row hyper"]:
        """See `Hyper.values`."""
        return (self.log_low + coordinates * (self.log_high - self.log_low)).exp()

    def mean(self) -> Float[Tensor, "member hyper"]:
        """Coordinates of the mean (or median) settings."""
        if self.point == "median":
            return self.coordinates((self.log_alpha + self.log_beta) / 2)
        width = self.log_beta - self.log_alpha
        safe = width.clamp_min(torch.finfo(width.dtype).tiny)  # (e^w - 1) / w tends to 1
        return self.coordinates(self.log_alpha + (safe.expm1() / safe).log())

    def entropy(self, reduction: str = "mean", space: str = "lambda") -> Scalar:
        """(log alpha + log beta) / 2 + log(log beta - log alpha) of lambda; the second summand alone of log lambda."""
        width = (self.log_beta - self.log_alpha).log()
        return reduced(width if space == "log" else width + (self.log_alpha + self.log_beta) / 2, reduction, space)

    @torch.no_grad()
    def project(self) -> None:
        """Intervals inside the allowed range, of at least the smallest width."""
        least = MIN_WIDTH * (self.log_high - self.log_low)
        self.log_alpha.copy_(torch.clamp(self.log_alpha, self.log_low, self.log_high - 2 * least))
        high = self.log_high.expand_as(self.log_beta)
        self.log_beta.copy_(torch.clamp(self.log_beta, self.log_alpha + least, high))

    def table(self) -> list[dict[str, Any]]:
        """See `Tunable.table`: low and high of each interval, and where the network predicts."""
        low, high, point = self.log_alpha.exp(), self.log_beta.exp(), self.values(self.mean())
        return _table(self.names, low=low, high=high, point=point)


class GaussianHyper(Tunable):
    """Member k draws h + softplus(rho) * xi, xi standard normal; log lambda = log low + width * sigmoid(h).

    Coordinates are the unbounded h; `centred`: their distance from where h stands now, as Delta-STN has them, so that
    the response of the weights vanishes at the present hyper-parameters.

    start    the first settings, one a range, strictly inside it.
    sigma    the first standard deviation of h.

    MacKay et al., arXiv 1903.03088; Bae & Grosse, arXiv 2010.13514.
    """

    def __init__(
        self,
        ranges: Sequence[HyperRange],
        num_members: int,
        *,
        start: Sequence[float],
        sigma: float = 0.5,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.ranges, self.centred = checked(ranges), centred
        low, high = logarithms(self.ranges)
        logs = torch.tensor([math.log(value) for value in start], dtype=low.dtype)
        if len(start) != len(self.ranges) or not bool(((low < logs) & (logs < high)).all()):
            raise ValueError(f"GaussianHyper: start wants a setting inside each of {self.ranges}, got {tuple(start)}")
        self.register_buffer("log_low", low)
        self.register_buffer("log_high", high)
        first = torch.logit((logs - low) / (high - low))
        self.h = nn.Parameter(repeat(first, "h -> k h", k=num_members).clone(), requires_grad=False)
        rho = torch.full_like(self.h.data, sigma + math.log(-math.expm1(-sigma)))  # the inverse of softplus
        self.rho = nn.Parameter(rho, requires_grad=False)

    @property
    def sigma(self) -> Float[Tensor, "member hyper"]:
        """Standard deviations of h."""
        return F.softplus(self.rho)

    def sample(self, num_rows: int) -> Float[Tensor, "member row hyper"]:
        """See `Tunable.sample`."""
        members, count = self.h.shape
        noise = torch.randn(members, num_rows, count, dtype=self.h.dtype, device=self.h.device)
        return self.mean()[:, None] + self.sigma[:, None] * noise

    def values(self, coordinates: Float[Tensor, "*row hyper"]) -> Float[Tensor, "*row hyper"]:
        """See `Hyper.values`; centred coordinates are (member, row, hyper)."""
        h = coordinates
        if self.centred:
            h = h + (self.h.detach()[:, None] if h.ndim == 3 else self.h.detach())
        return (self.log_low + h.sigmoid() * (self.log_high - self.log_low)).exp()

    def mean(self) -> Float[Tensor, "member hyper"]:
        """h itself; zeros that know its gradient where centred."""
        return self.h - self.h.detach() if self.centred else self.h

    def entropy(self, reduction: str = "mean", space: str = "log") -> Scalar:
        """log(sigma sqrt(2 pi e)) of h: the coordinates have their own space, and `space` changes nothing here."""
        return reduced(self.sigma.log() + 0.5 * math.log(2 * math.pi * math.e), reduction, space)

    @torch.no_grad()
    def project(self) -> None:
        """A smallest standard deviation."""
        self.rho.clamp_(min=math.log(math.expm1(MIN_SIGMA)))

    def table(self) -> list[dict[str, Any]]:
        """See `Tunable.table`: the setting at h, and at h less and plus one standard deviation."""
        width = self.log_high - self.log_low
        at = [(self.log_low + (self.h + d * self.sigma).sigmoid() * width).exp() for d in (-1, 0, 1)]
        return _table(self.names, low=at[0], high=at[2], point=at[1])


def checked(ranges: Sequence[HyperRange]) -> tuple[HyperRange, ...]:
    """The ranges. Raises ValueError for none, equal names, and bounds that have no logarithm or no order."""
    if not ranges or len({r.name for r in ranges}) != len(ranges):
        raise ValueError(f"ranges: wants at least one hyper-parameter, each with its own name, got {tuple(ranges)}")
    for r in ranges:
        if not 0 < r.low < r.high < math.inf:
            raise ValueError(f"ranges: {r.name} wants 0 < low < high, got {r.low} and {r.high}")
    return tuple(ranges)


def checked_name(field: str, value: str, known: Sequence[str]) -> str:
    """The value. Raises ValueError unless it is one of `known`."""
    if value not in known:
        raise ValueError(f"{field} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def logarithms(ranges: Sequence[HyperRange]) -> tuple[Float[Tensor, " hyper"], Float[Tensor, " hyper"]]:
    """Logarithms of the lower and the upper ends."""
    return torch.tensor([math.log(r.low) for r in ranges]), torch.tensor([math.log(r.high) for r in ranges])


def reduced(entropies: Float[Tensor, "member hyper"], reduction: str, space: str) -> Scalar:
    """Their mean or sum; both words are checked."""
    checked_name("entropy_space", space, SPACES)
    return entropies.mean() if checked_name("entropy", reduction, REDUCTIONS) == "mean" else entropies.sum()


def _table(names: Sequence[str], **columns: Float[Tensor, "member hyper"]) -> list[dict[str, Any]]:
    numbers = {key: t.detach().cpu().tolist() for key, t in columns.items()}
    members = len(next(iter(numbers.values())))
    return [
        {"member": k, "hyper": name, **{key: rows[k][place] for key, rows in numbers.items()}}
        for k in range(members)
        for place, name in enumerate(names)
    ]
