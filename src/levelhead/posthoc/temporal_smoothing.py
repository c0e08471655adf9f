"""Temporal smoothing: the belief about a frame of a stream is averaged with those about the frames before it."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.measuring import drawing
from levelhead.predictive import Predictive, mix
from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import undecided
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class TemporalSmoothing:
    """p(y | x_0) = sum_{t=0}^{-K} w_t p(y | x_t), w_t = exp(-r |t|) / sum_s exp(-r |s|): one pass a frame.

    The members of the frames, each with its share of w_t, are the mixture: what the frames disagree about is epistemic.
    A network that draws draws anew for every frame, so that few passes a frame do what many passes of one frame do.

    Rows that are no stream stay as they are: the predictor itself believes what it did before, and
    `predictor.stream()` opens a stream; see `FrameStream`. Put this step last.

    decay_rate  r, at least 0: 0 weighs all frames alike, inf takes the current one alone. The paper says tau = 0.8, and
                its code takes the 0.8 as the rate, tau = 1 / r = 1.25. This is the rate.
    horizon     K, how many frames back.

    No training changes, and networks that draw nothing gain too.

    Park, Lee & Kim, arXiv 1907.05911.
    """

    reference: ClassVar[Reference] = Reference(
        "Park, Lee & Kim",
        2021,
        arxiv="1907.05911",
        title="Vector Quantized Bayesian Neural Network Inference for Data Streams",
    )
    keeps_labels: ClassVar[bool] = True
    decay_rate: float = 0.8
    horizon: int = 5

    def __post_init__(self) -> None:
        check("TemporalSmoothing", self.decay_rate, self.horizon)

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, with streams. Reads no rows."""
        return Streaming(predictor, self.decay_rate, self.horizon)


class Streaming(Predictor):
    """A predictor of single rows, as before, that can follow streams of frames."""

    def __init__(self, inner: Predictor, decay_rate: float, horizon: int) -> None:
        super().__init__()
        self.inner = inner
        self.decay_rate = decay_rate
        self.horizon = horizon
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """The inner belief: rows of a batch have no order in time."""
        return self.inner(x)

    def stream(self, noise: int | None = 0) -> "FrameStream":
        """A new stream, or several side by side: the rows of its frames."""
        return FrameStream(self.inner, decay_rate=self.decay_rate, horizon=self.horizon, noise=noise)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)


class FrameStream:
    """Frames one after the other, and the beliefs about the last few of them.

    predictor  any.
    noise      seed of the first frame's draws, where the predictor draws; the next frame has the next seed. None draws
               afresh. The predictor itself stays as it was.
    """

    def __init__(
        self, predictor: Predictor, *, decay_rate: float = 0.8, horizon: int = 5, noise: int | None = 0
    ) -> None:
        check("FrameStream", decay_rate, horizon)
        self.predictor = predictor
        self.decay_rate = decay_rate
        self.noise = noise
        self.past: deque[Predictive] = deque(maxlen=horizon + 1)  # the current frame's first
        self.count = 0
        self.streams = 0

    @torch.no_grad()
    def update(self, x: Float[Tensor, "stream *input"]) -> Predictive:
        """The smoothed belief about the next frame, of one stream or of several side by side.

        Raises ValueError where another number of streams came before, and CannotCompose where the predictor has
        attached prediction sets or abstentions, which hold for its own beliefs alone.
        """
        with drawing(self.predictor, None if self.noise is None else self.noise + self.count):
            belief = undecided(self.predictor(x), step="A stream")
        if self.past and len(x) != self.streams:
            raise ValueError(
                f"update: a frame of {len(x)} streams after frames of {self.streams}; reset() starts others"
            )
        self.streams = len(x)
        self.past.appendleft(belief)
        self.count += 1
        return mix(list(self.past), frame_weights(len(self.past), self.decay_rate).to(belief.log_weights))

    def follow(self, frames: Iterable[Float[Tensor, "stream *input"]]) -> Iterator[Predictive]:
        """The smoothed belief about each frame, in order; frames may be a tensor (time, stream, *input)."""
        return map(self.update, frames)

    def reset(self) -> None:
        """Forget everything: the next frame is the first of another stream."""
        self.past.clear()
        self.count = 0


def frame_weights(frames: int, decay_rate: float) -> Float[Tensor, " frame"]:
    """Normalised log weights of the current frame and those before it, by age, in float64."""
    age = torch.arange(frames, dtype=torch.float64)
    fading = torch.where(age == 0, 0.0, -decay_rate * age.clamp_min(1))  # 0 * inf is no number
    return fading.log_softmax(0)


def check(asker: str, decay_rate: float, horizon: int) -> None:
    """ValueError that names what is wrong with the weights of a stream."""
    if math.isnan(decay_rate) or decay_rate < 0:
        raise ValueError(f"{asker}: decay_rate must be at least 0, got {decay_rate}")
    if horizon < 0:
        raise ValueError(f"{asker}: horizon counts frames, at least 0; got {horizon}")
