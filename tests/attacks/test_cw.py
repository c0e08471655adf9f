import torch
from attacks.bent import Bent, generator, right
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks.cw import CW
from levelhead.attacks.deep_fool import DeepFool

QUICK = CW(steps=200, rounds=7)


def test_on_a_linear_predictor_it_finds_the_known_distance():
    predictor, (x, _) = Linear(scale=0.3), images(20, low=0.4, high=0.6)
    y = predictor(x).label
    found = QUICK.nearest(predictor, x, y, generator())
    wanted = predictor.signed_margin(x, y) / (0.3 * predictor.weight.detach().norm())
    assert bool(found.success.all())
    assert bool((found.distance >= wanted * 0.999).all())
    assert float((found.distance / wanted).median()) < 1.03


def test_it_is_nearer_than_deep_fool():
    predictor, (x, _) = Bent(), images(24)
    y = predictor(x).label
    ours, theirs = (attack.nearest(predictor, x, y, generator()) for attack in (QUICK, DeepFool()))
    both = ours.success & theirs.success
    assert ours.success.double().mean() > 0.9
    assert float((ours.distance / theirs.distance)[both & (theirs.distance > 0)].median()) < 1.0


def test_images_at_the_bounds_move():
    predictor = Linear(scale=0.3)
    x = torch.rand(20, 1, 4, 4, generator=generator()).round()
    y = predictor(x).label
    found = CW(steps=400, rounds=6).nearest(predictor, x, y, generator())
    assert found.success.double().mean() > 0.9
    assert bool(found.x.isfinite().all())
    assert torch.equal(found.success, ~right(predictor, found.x, y))


def test_all_logits_may_be_negative():
    plain, negative, (x, _) = Bent().double(), Bent().double(), images(10)
    negative.net[-1].bias.data -= 100
    x = x.double()
    y = plain(x).label
    first, second = (CW(steps=50, rounds=3).nearest(predictor, x, y, generator()) for predictor in (plain, negative))
    assert_close(first.distance, second.distance)


def test_a_margin_can_be_asked_for():
    predictor, (x, _) = Linear(), images(10)
    y = predictor(x).label
    sure = CW(steps=150, rounds=5, kappa=0.5).nearest(predictor, x, y, generator())
    assert bool(sure.success.all())
    log_probs = predictor(sure.x).log_probs.detach()
    assert float((log_probs.gather(1, 1 - y[:, None]) - log_probs.gather(1, y[:, None])).min()) >= 0.5 - 1e-5


def test_rows_that_are_wrong_stay():
    predictor, (x, _) = Bent(), images(6)
    y = (predictor(x).label + 1) % 3
    found = QUICK.nearest(predictor, x, y, generator())
    assert torch.equal(found.x, x)
    assert torch.equal(found.distance, torch.zeros(6))
