import itertools

import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks.apgd import APGD, intervals
from levelhead.attacks.pgd import PGD
from levelhead.predictive import CategoricalMixture


def test_checkpoints_stand_at_the_published_steps():
    found = list(itertools.accumulate(intervals(100)))
    assert [step for step in found if step <= 100] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert found[-1] > 100
    assert all(sum(intervals(steps)) > steps for steps in range(1, 60))


@pytest.mark.parametrize("norm, dual", [("linf", 1), ("l2", 2)])
def test_a_linear_margin_falls_by_the_radius_times_the_dual_norm(norm, dual):
    predictor, (x, y) = Linear(), images(low=0.4, high=0.6)
    moved = APGD(eps=0.2, steps=20, norm=norm)(predictor, x, y, generator())
    fall = predictor.signed_margin(x, y) - predictor.signed_margin(moved, y)
    wanted = 0.2 * float(torch.linalg.vector_norm(predictor.weight.detach(), ord=dual))
    assert_close(fall, torch.full_like(fall, wanted), rtol=2e-3, atol=1e-4)


def test_it_is_the_slow_computation_row_by_row():
    predictor, (x, y) = Bent().double(), images(5)
    x = x.double()
    eps, steps = 0.2, 30
    for row in range(len(x)):
        attack = APGD(eps=eps, steps=steps)
        worst = attack(predictor, x[row : row + 1], y[row : row + 1], generator(row))
        noise = start_of(generator(row), x[row : row + 1])
        assert_close(worst, slow(predictor, x[row : row + 1], y[row : row + 1], noise, eps, steps))


def start_of(source, x):
    """The start's noise, from the stream that the first row gets."""
    _, seed = torch.randint(2**62, (2,), generator=source).tolist()
    noise = 2 * torch.rand(x.shape[1:], generator=generator(seed)).to(x) - 1
    return noise[None] / noise.abs().max()


def slow(predictor, x, y, noise, eps, steps):
    """The algorithm of the paper for one row, with lists."""

    def look(at):
        point = at.clone().requires_grad_(True)
        log_probs = predictor(point).log_probs
        loss = -log_probs[0, y[0]]
        (slope,) = torch.autograd.grad(loss, point)
        known = log_probs[0].detach()
        wrong = torch.cat([known[: y[0]], known[y[0] + 1 :]]).max()
        return float(loss.detach()), slope, float(wrong - known[y[0]])

    def back(at):
        return torch.clamp(torch.clamp(at, x - eps, x + eps), 0, 1)

    at = back(x + eps * noise)
    loss, slope, margin = look(at)
    best, best_slope, best_loss = at, slope, loss
    worst, worst_margin = at, margin
    before, size, losses = at, 2 * eps, [loss]
    halved, checked_loss, begun = True, loss, 0
    gap, check = max(int(0.22 * steps), 1), max(int(0.22 * steps), 1)
    for k in range(1, steps + 1):
        ahead = back(at + size * slope.sign())
        new = ahead if k == 1 else back(at + 0.75 * (ahead - at) + 0.25 * (at - before))
        before, at = at, new
        loss, slope, margin = look(at)
        losses.append(loss)
        if margin > worst_margin:
            worst, worst_margin = at, margin
        if loss > best_loss:
            best, best_slope, best_loss = at, slope, loss
        if k == check:
            rises = sum(losses[i] > losses[i - 1] for i in range(begun + 1, k + 1))
            halve = rises <= 0.75 * gap or (not halved and checked_loss >= best_loss)
            halved, checked_loss, begun = halve, best_loss, k
            if halve:
                size, at, slope = size / 2, best, best_slope
                losses[-1] = best_loss
            gap = max(gap - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
            check = k + gap
    return worst


def test_it_is_at_least_as_strong_as_pgd():
    predictor, (x, _) = Bent(), images(300)
    y = predictor(x).label
    theirs = right(predictor, PGD(eps=0.05, steps=60)(predictor, x, y, generator()), y).sum()
    for loss in ("ce", "dlr"):
        assert right(predictor, APGD(eps=0.05, steps=60, loss=loss)(predictor, x, y, generator()), y).sum() <= theirs


class Scaled(Bent):
    """Its logits times a thousand: cross-entropy is flat in float32."""

    def forward(self, x):
        return CategoricalMixture(1e3 * self.net(x)[None])


def test_the_ratio_is_blind_to_the_scale_of_the_logits_and_cross_entropy_is_not():
    plain, scaled, (x, _) = Bent(), Scaled(), images(100)
    y = plain(x).label
    by_ratio = APGD(eps=0.05, steps=40, loss="dlr")
    first, second = (right(predictor, by_ratio(predictor, x, y, generator()), y) for predictor in (plain, scaled))
    assert torch.equal(first, second)
    by_entropy = right(scaled, APGD(eps=0.05, steps=40)(scaled, x, y, generator()), y)
    assert by_entropy.sum() > second.sum()


def test_targets_are_the_likeliest_wrong_classes():
    predictor, (x, _) = Bent(classes=6), images(100)
    y = predictor(x).label
    attack = APGD(eps=0.1, steps=20, loss="dlr", targets=2)
    fooled = ~right(predictor, attack(predictor, x, y, generator()), y)
    reached = predictor(attack(predictor, x, y, generator())).label[fooled]
    likely = predictor(x).log_probs.argsort(-1, descending=True)[fooled, 1:3]
    assert bool(fooled.any())
    assert (reached[:, None] == likely).any(1).double().mean() > 0.9  # on the way to one class it may meet another


@pytest.mark.parametrize("few, many", [({"targets": 1}, {"targets": 5}), ({"restarts": 1}, {"restarts": 9})])
def test_more_targets_and_restarts_never_help_the_defence(few, many):
    predictor, (x, _) = Bent(classes=10, scale=6.0), images(200)
    y = predictor(x).label
    fewer, more = (
        right(predictor, APGD(eps=0.1, steps=5, **fields)(predictor, x, y, generator()), y) for fields in (few, many)
    )
    assert bool((more <= fewer).all())
    assert more.sum() < fewer.sum()


@pytest.mark.parametrize("classes, fields", [(2, {}), (3, {"targets": 1})])
def test_the_ratio_wants_enough_classes(classes, fields):
    x, _ = images(4)
    with pytest.raises(ValueError, match=f"at least {classes + 1} classes, got {classes}"):
        APGD(loss="dlr", **fields)(Bent(classes=classes), x, torch.zeros(4, dtype=torch.long), generator())


def test_stopping_gives_the_same_success():
    predictor, (x, _) = Bent(), images(100)
    y = predictor(x).label
    whole, short = (APGD(eps=0.05, steps=30, stop=stop)(predictor, x, y, generator()) for stop in (False, True))
    assert torch.equal(right(predictor, whole, y), right(predictor, short, y))
