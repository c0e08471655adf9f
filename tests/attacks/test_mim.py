import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks.mim import MIM
from levelhead.attacks.pgd import PGD


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_momentum_it_is_pgd(norm):
    predictor, (x, y) = Bent(), images(64)
    plain = PGD(eps=0.1, steps=5, step_size=0.03, random_start=False, norm=norm)(predictor, x, y, generator())
    assert_close(MIM(eps=0.1, steps=5, step_size=0.03, momentum=0.0, norm=norm)(predictor, x, y, generator()), plain)


def test_the_radius_is_reached():
    predictor, (x, y) = Linear(), images()
    moved = MIM(eps=0.1)(predictor, x, y, generator())
    assert_close((moved - x).abs().amax((1, 2, 3)), torch.full((len(x),), 0.1))


def test_it_follows_the_published_recursion():
    predictor, (x, y) = Bent(), images(6)
    drift, moved, tried = torch.zeros_like(x), x, []
    for _ in range(4):
        point = moved.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(-predictor(point).log_prob(y).sum(), point)
        drift = 0.9 * drift + slope / slope.abs().sum((1, 2, 3), keepdim=True)
        moved = torch.clamp(torch.clamp(moved + 0.02 * drift.sign(), x - 0.08, x + 0.08), 0, 1)
        tried.append(moved)
    log_probs = torch.stack([predictor(point).log_probs for point in tried]).detach()
    own = log_probs.gather(-1, y.expand(4, 6)[..., None])[..., 0]
    margins = log_probs.scatter(-1, y.expand(4, 6)[..., None], -torch.inf).amax(-1) - own
    wanted = torch.stack(tried)[margins.argmax(0), torch.arange(6)]
    assert_close(MIM(eps=0.08, steps=4, momentum=0.9)(predictor, x, y, generator()), wanted)


def test_steps_stop_where_the_row_has_fallen():
    predictor, (x, _) = Bent(), images(100)
    y = predictor(x).label
    whole, short = (MIM(eps=0.1, stop=stop)(predictor, x, y, generator()) for stop in (False, True))
    assert torch.equal(right(predictor, whole, y), right(predictor, short, y))
    assert not torch.equal(whole, short)
