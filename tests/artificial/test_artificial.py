"""Artificial inputs: where they lie, that they are drawn anew, and that a seed decides them."""

import pytest
import torch

from levelhead.artificial.box import Box
from levelhead.artificial.jitter import Jitter
from levelhead.artificial.mix_up import MixUp
from levelhead.artificial.training_box import TrainingBox
from levelhead.catalogue import parts
from levelhead.passes import seeded

ROWS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1]) + 2


@pytest.mark.parametrize("spec", [spec() for spec in parts("artificial")], ids=lambda spec: type(spec).__name__)
@pytest.mark.parametrize("rows", [ROWS, ROWS.double(), torch.rand(6, 1, 4, 5)], ids=["table", "double", "pixels"])
def test_points_look_like_rows_and_a_seed_decides_them(spec, rows):
    held = rows.clone()
    draw = spec(rows)
    with seeded(3):
        first, second = draw(50), draw(50)
    with seeded(3):
        again = spec(rows)(50)
    assert first.shape == (50, *rows.shape[1:])
    assert first.dtype == rows.dtype
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(rows, held)


def test_boxes_are_filled_to_their_margins():
    low, high = ROWS.amin(0), ROWS.amax(0)
    points = TrainingBox(margin=0.1)(ROWS)(4000)
    apart = 0.1 * (high - low)
    for side, corner in ((points.amin(0), low - apart), (points.amax(0), high + apart)):
        assert ((side - corner).abs() < 0.02 * (high - low)).all()
    assert (points >= low - apart - 1e-5).all()
    fixed = Box((0.0, 0.0, -1.0), (1.0, 2.0, 1.0), margin=0.0)(ROWS)(4000)
    assert (fixed.amax(0) - torch.tensor([1.0, 2.0, 1.0])).abs().max() < 0.01
    assert (Box((0.0,), (1.0,), margin=0.5)(ROWS)(4000).amin(0) + 0.5).abs().max() < 0.01


def test_jitter_reaches_as_far_as_the_neighbours_are():
    rows = torch.cat([torch.zeros(20, 2), torch.tensor([[100.0, 100.0]])])
    spread = rows.std(0, correction=0)
    points = Jitter(scale=0.1, neighbours=1)(rows)(2000)
    assert torch.equal(points[points.abs().amax(1) < 50], torch.zeros(int((points.abs().amax(1) < 50).sum()), 2))
    lone = (points[points.abs().amax(1) > 50] - 100) / spread
    expected = 0.1 * float((rows[-1] / spread).norm())  # root mean square distance of the lone row's points
    assert float(lone.square().sum(1).mean().sqrt()) == pytest.approx(expected, rel=0.2)


def test_mixtures_lie_on_lines_between_rows():
    rows = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    points = MixUp(beyond=0.5)(rows)(3000)
    assert torch.allclose(points[:, 1], 2 * points[:, 0], atol=1e-5)
    assert float(points[:, 0].amin()) == pytest.approx(-0.5, abs=0.01)
    assert float(points[:, 0].amax()) == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Box((1.0,), (1.0,)),
        lambda: Box((0.0, 0.0), (1.0,)),
        lambda: Box((0.0, 0.0), (1.0, 1.0))(ROWS),
        lambda: Box(margin=-0.1),
        lambda: TrainingBox(margin=-0.1),
        lambda: Jitter(scale=0.0),
        lambda: Jitter(neighbours=0),
        lambda: MixUp(beyond=-1.0),
    ],
)
def test_refuses_what_is_no_region(wrong):
    with pytest.raises(ValueError, match=r"Box|TrainingBox|Jitter|MixUp"):
        wrong()
