"""Streams of frames against sums written out, and that rows which are no stream stay as they are."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.likelihood import Categorical, Gaussian, Signature
from levelhead.network import build
from levelhead.posthoc.lac import LAC
from levelhead.posthoc.temporal_smoothing import FrameStream, Streaming, TemporalSmoothing, frame_weights
from levelhead.predictor import Ensemble, Point, Predictor
from levelhead.storage import load, save
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.tasks.load import load_task
from levelhead.types import CannotCompose

TASK = load_task("two-moons")
SIGNATURE = Signature(input_shape=(2,), num_outputs=3, likelihood=Categorical(3))
FRAMES = torch.randn(9, 4, 2, generator=torch.Generator().manual_seed(0))


def point(*, draws: int = 0, seed: int = 0) -> Point:
    torch.manual_seed(seed)
    dropout = (MCDropout(p=0.4, num_samples=draws),) if draws else ()
    return Point(build(MLP(hidden=(16,)), dropout, SIGNATURE))


def smoothed(predictor: Predictor, decay_rate: float = 0.8, horizon: int = 5) -> Streaming:
    made = TemporalSmoothing(decay_rate=decay_rate, horizon=horizon)(predictor, TASK)
    assert isinstance(made, Streaming)
    return made


def written_out(predictor: Predictor, now: int, decay_rate: float, horizon: int) -> Tensor:
    """sum_t w_t p(y | x_t) of one frame."""
    first = max(0, now - horizon)
    weights = torch.tensor([math.exp(-decay_rate * (now - t)) for t in range(first, now + 1)])
    probs = torch.stack([predictor(FRAMES[t]).probs for t in range(first, now + 1)])
    return (probs * (weights / weights.sum())[:, None, None]).sum(0)


@pytest.mark.parametrize("decay_rate, horizon", [(0.8, 5), (0.8, 2), (2.5, 0), (0.0, 3)])
def test_beliefs_are_the_weighted_mean_of_the_last_frames(decay_rate: float, horizon: int) -> None:
    inner = point()
    beliefs = list(smoothed(inner, decay_rate, horizon).stream().follow(FRAMES))
    assert len(beliefs) == len(FRAMES)
    for now, belief in enumerate(beliefs):
        assert_close(belief.probs, written_out(inner, now, decay_rate, horizon))
        assert belief.num_members == min(now, horizon) + 1


def test_weights() -> None:
    for rate in (0.0, 0.8, 50.0, math.inf):
        assert float(frame_weights(6, rate).exp().sum()) == pytest.approx(1.0)
    assert_close(frame_weights(4, 0.0).exp(), torch.full((4,), 0.25, dtype=torch.float64))
    assert frame_weights(4, math.inf).exp().tolist() == [1, 0, 0, 0]
    ratios = frame_weights(6, 0.8).diff()
    assert_close(ratios, torch.full((5,), -0.8, dtype=torch.float64))  # a rate: 0.8 = 1 / tau, tau = 1.25


def test_with_an_endless_rate_only_the_current_frame_counts() -> None:
    inner = point()
    for frame, belief in zip(FRAMES, smoothed(inner, math.inf).stream().follow(FRAMES), strict=True):
        assert_close(belief.probs, inner(frame).probs)
        assert_close(belief.total(), inner(frame).total())
        assert_close(belief.epistemic(), torch.zeros(4), atol=1e-6, rtol=0)


def test_a_long_horizon_is_exponential_averaging() -> None:
    inner, rate = point(), 0.8
    a = 1 - math.exp(-rate)
    stream = smoothed(inner, rate, horizon=200).stream()
    running = inner(FRAMES[0]).probs
    for t in range(60):
        frame = FRAMES[t % 9]
        running = running if t == 0 else (1 - a) * running + a * inner(frame).probs
        belief = stream.update(frame)
    assert_close(belief.probs, running)


def test_rows_that_are_no_stream_stay_as_they_are_also_in_mid_stream() -> None:
    inner = point(draws=3)
    predictor = smoothed(inner)
    before = inner(FRAMES[0])
    stream = predictor.stream()
    for frame in FRAMES[:3]:
        stream.update(frame)
        assert torch.equal(predictor(FRAMES[0]).logits, before.logits)
    assert inner.noise == 0


def test_members_of_the_frames_are_the_mixture_and_disagreement_is_epistemic() -> None:
    inner = Ensemble([point(), point(seed=1)])
    stream = smoothed(inner, horizon=2).stream()
    belief = [stream.update(frame) for frame in FRAMES[:3]][-1]
    assert belief.num_members == 6
    assert_close(belief.total(), belief.aleatoric() + belief.epistemic())
    assert (belief.epistemic() > inner(FRAMES[2]).epistemic()).any()
    assert_close(belief.log_weights.exp().unflatten(0, (3, 2)).sum(1), frame_weights(3, 0.8).exp().float())


def test_every_frame_draws_anew_and_a_stream_repeats_itself() -> None:
    predictor = smoothed(point(draws=2))
    still = FRAMES[:1].expand(5, -1, -1)
    one, same = (list(predictor.stream().follow(still)) for _ in range(2))
    for a, b in zip(one, same, strict=True):
        assert torch.equal(a.logits, b.logits)
    draws = one[-1].logits.unflatten(0, (5, 2))
    assert not torch.equal(draws[0], draws[1])  # the same frame, other masks
    assert not torch.equal(one[-1].logits, list(predictor.stream(noise=7).follow(still))[-1].logits)


def test_reset_begins_another_stream() -> None:
    predictor = smoothed(point(draws=2))
    stream = predictor.stream()
    first = stream.update(FRAMES[0])
    stream.update(FRAMES[1])
    with pytest.raises(ValueError, match=r"a frame of 2 streams after frames of 4; reset\(\)"):
        stream.update(FRAMES[2, :2])
    stream.reset()
    assert torch.equal(stream.update(FRAMES[0]).logits, first.logits)
    stream.reset()
    assert stream.update(FRAMES[2, :2]).num_members == 2


def test_targets_are_smoothed_too() -> None:
    signature = Signature(input_shape=(2,), num_outputs=2, likelihood=Gaussian())
    inner = Point(MLP(hidden=(8,))(signature))
    belief = list(FrameStream(inner, horizon=3).follow(FRAMES))[-1]
    weights = frame_weights(4, 0.8).exp().float()
    means = torch.stack([inner(FRAMES[-1 - age]).mean for age in range(4)])
    assert_close(belief.mean, torch.einsum("f,fb...->b...", weights, means))


def test_storage_keeps_the_weights(tmp_path) -> None:
    predictor = smoothed(point(), decay_rate=0.3, horizon=2)
    save(predictor, tmp_path / "predictor")
    again = load(tmp_path / "predictor")
    assert isinstance(again, Streaming)
    for a, b in zip(predictor.stream().follow(FRAMES), again.stream().follow(FRAMES), strict=True):
        assert torch.equal(a.log_probs, b.log_probs)


def test_prediction_sets_hold_for_their_own_beliefs_alone() -> None:
    network = MLP(hidden=(8,))(TASK.signature)
    stream = smoothed(LAC()(Point(network), TASK)).stream()
    with pytest.raises(CannotCompose, match="hold for"):
        stream.update(TASK.test.x[:3])


def test_a_noisy_stream_is_believed_with_more_right() -> None:
    """Frames that are the same point under independent noise: the mean over them is nearer to the noiseless belief."""
    inner = point()
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    noisy = x + 0.5 * torch.randn(12, 200, 2, generator=torch.Generator().manual_seed(2))
    alone = torch.stack([inner(frame).probs - inner(x).probs for frame in noisy[5:]]).square().mean()
    beliefs = list(smoothed(inner).stream().follow(noisy))[5:]
    together = torch.stack([belief.probs - inner(x).probs for belief in beliefs]).square().mean()
    assert together < alone / 2


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="TemporalSmoothing: decay_rate must be at least 0, got -1"):
        TemporalSmoothing(decay_rate=-1.0)
    with pytest.raises(ValueError, match="TemporalSmoothing: horizon counts frames, at least 0; got -2"):
        TemporalSmoothing(horizon=-2)
    with pytest.raises(ValueError, match="FrameStream: decay_rate"):
        FrameStream(point(), decay_rate=math.nan)
