"""What every attack looks at: the predictor at rest, its rows, and their random streams, for as long as it lasts.

Attacks are functions (predictor, x, y, generator) -> x'. They take the predictor as it is deployed, over all members
and samples; one that draws with a fixed noise seed is attacked at those draws, so give it `with_noise(None)` first.
Nothing of the predictor changes: no parameter gradient, no mode, no statistic; nor does torch's own random stream.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.attacks._loss import Loss, at, margin, objective
from levelhead.attacks._streams import Streams
from levelhead.passes import seeded
from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Predictor
from levelhead.probe import evaluating
from levelhead.types import CannotCompose, Targets

NO_LABELS = "Attacks want one label a row; for real targets and maps there is no wrong answer to reach"


class Attack(Protocol):
    """A search for an input near x on which the predictor is wrong. A frozen dataclass in a file of its own name."""

    def __call__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """The attacked inputs, detached; `x` is untouched."""

    def on(self, victim: "Victim") -> Float[Tensor, "batch *input"]:
        """The same on rows that are already faced: how attacks are made of others."""


class Ascent(NamedTuple):
    """Loss, its gradient in x, and how wrong the predictor is there: the margin, positive where it errs."""

    gradient: Float[Tensor, "row *input"]
    loss: Float[Tensor, " row"]
    margin: Float[Tensor, " row"]


class Slopes(NamedTuple):
    """log p_k - log p_y for some classes k of each row, and their gradients in x."""

    gaps: Float[Tensor, "row class"]
    gradients: Float[Tensor, "row class *input"]


class Victim:
    """A predictor at rest and rows to attack. `rows` below are places among them, (row,); `moved` are their points."""

    def __init__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Int[Tensor, " batch"], seeds: Sequence[int]
    ) -> None:
        self.predictor, self.x, self.y = predictor, x, y
        self.streams = Streams(seeds)

    @property
    def rows(self) -> Int[Tensor, " batch"]:
        """All of them."""
        return torch.arange(len(self.x), device=self.x.device)

    def only(self, rows: Int[Tensor, " row"]) -> "Victim":
        """Some of the rows, each with its stream as it was at the beginning."""
        return Victim(self.predictor, self.x[rows], self.y[rows], [self.streams.seeds[row] for row in rows.tolist()])

    def ascent(
        self,
        moved: Float[Tensor, "row *input"],
        rows: Int[Tensor, " row"],
        *,
        loss: Loss,
        draws: int,
        other: Int[Tensor, " row"] | None = None,
    ) -> Ascent:
        """The gradient of the loss, averaged over `draws` calls of the predictor; loss and margin of the same calls."""
        y, found = self.y[rows], []
        for _ in range(draws):
            point = moved.detach().requires_grad_(True)
            log_probs = self.log_probs(point)
            value = objective(log_probs, y, loss, other)
            # summed: the batch size must not scale a row's gradient
            gradient = torch.autograd.grad(value.sum(), point)[0]
            found.append(Ascent(gradient, value.detach(), margin(log_probs.detach(), y)))
        return found[0] if draws == 1 else Ascent(*(torch.stack(part).mean(0) for part in zip(*found, strict=True)))

    def margin(
        self, moved: Float[Tensor, "row *input"], rows: Int[Tensor, " row"], *, draws: int
    ) -> Float[Tensor, " row"]:
        """max_{k != y} log p_k - log p_y, the mean of `draws` calls."""
        with torch.no_grad():
            return torch.stack([margin(self.log_probs(moved), self.y[rows]) for _ in range(draws)]).mean(0)

    def slopes(
        self, moved: Float[Tensor, "row *input"], rows: Int[Tensor, " row"], classes: Int[Tensor, "row class"]
    ) -> Slopes:
        """Gaps to some classes and their gradients: one forward pass and a backward pass a class."""
        point = moved.detach().requires_grad_(True)
        log_probs = self.log_probs(point)
        gaps = log_probs.gather(-1, classes) - at(log_probs, self.y[rows])[:, None]
        last = classes.shape[1] - 1
        gradients = [
            torch.autograd.grad(gaps[:, k].sum(), point, retain_graph=k < last)[0] for k in range(classes.shape[1])
        ]
        return Slopes(gaps.detach(), torch.stack(gradients, dim=1))

    def others(self, rows: Int[Tensor, " row"], count: int) -> Int[Tensor, "row class"]:
        """The `count` most likely wrong classes at x, or as many as there are."""
        with torch.no_grad():
            log_probs = self.log_probs(self.x[rows])
        wrong = log_probs.scatter(-1, self.y[rows][:, None], -torch.inf)
        return wrong.topk(min(count, wrong.shape[-1] - 1), dim=-1).indices

    def log_probs(self, at: Float[Tensor, "row *input"]) -> Float[Tensor, "row class"]:
        """Of the mixture. Raises CannotCompose for beliefs that are not about labels."""
        belief = self.predictor(at)
        if not isinstance(belief, CategoricalMixture) or belief.logits.ndim != 3:
            raise CannotCompose(NO_LABELS)
        return belief.log_probs


class Worst:
    """Of all points that were tried, each row's with the largest margin."""

    def __init__(self, x: Float[Tensor, "batch *input"]) -> None:
        self.x = x.clone()
        self.margin = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)

    def keep(
        self, rows: Int[Tensor, " row"], moved: Float[Tensor, "row *input"], margin: Float[Tensor, " row"]
    ) -> None:
        """Take what is worse than before."""
        better = margin > self.margin[rows]
        self.x[rows[better]] = moved[better].detach()
        self.margin[rows[better]] = margin[better].to(self.margin)

    def standing(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " still"]:
        """Those of the rows on which the predictor has not erred yet."""
        return rows[self.margin[rows] <= 0]


@contextmanager
def facing(
    predictor: Predictor,
    x: Float[Tensor, "batch *input"],
    y: Targets,
    generator: torch.Generator,
    *,
    by_gradient: bool = True,
) -> Iterator[Victim]:
    """The predictor and the rows, for one attack; everything it draws comes from `generator`, on whatever device.

    Raises CannotCompose where gradients are wanted and some part of the predictor has none in x.
    """
    if y.is_floating_point() or y.ndim != 1:
        raise CannotCompose(NO_LABELS)
    if by_gradient:
        check_differentiable(predictor)
    noise, *seeds = torch.randint(2**62, (len(x) + 1,), generator=generator, device=generator.device).tolist()
    with torch.inference_mode(False), torch.enable_grad(), evaluating(predictor), seeded(noise, x.device):
        yield Victim(predictor, x.detach().clone(), y.clone(), seeds)


def check_differentiable(predictor: Predictor) -> None:
    """Raise CannotCompose where some part of the predictor has no gradient in x."""
    for part in predictor.modules():
        if isinstance(part, Predictor) and not part.differentiable:
            raise CannotCompose(
                f"{type(part).__name__} is not differentiable in x, so an attack by gradients would only seem to fail. "
                "Attack the predictor before this step"
            )


def check_counts(name: str, **counts: int) -> None:
    """ValueError for numbers below one."""
    for field, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: {field} must be at least 1, got {count}")
