"""Rows in other batches, the same choice of rows for everybody, and noise that is handed back."""

import pytest
import torch
from networks import Noisy
from torch import nn

from levelhead.likelihood import Categorical, Signature
from levelhead.measuring import drawing, limited, rebatched, stable_seed
from levelhead.network import Network
from levelhead.predictor import Ensemble, Point
from levelhead.tasks.stripes import stripes
from levelhead.types import Batch


@pytest.mark.parametrize("size", [1, 3, 4, 5, 10, 50])
def test_rebatching_keeps_rows_and_order(size):
    x = torch.arange(10.0)[:, None]
    blocks = (Batch(x[i : i + 4], x[i : i + 4], torch.arange(10)[i : i + 4]) for i in range(0, 10, 4))
    batches = list(rebatched(blocks, size))
    assert torch.equal(torch.cat([b.x for b in batches]), x)
    assert torch.cat([b.index for b in batches]).tolist() == list(range(10))
    assert [len(b.x) for b in batches] == [min(size, 10 - i) for i in range(0, 10, size)]


def test_seeds_have_names():
    assert stable_seed("fog", 1, 0) == stable_seed("fog", 1, 0)
    assert (
        len({stable_seed("fog", 1, 0), stable_seed("fog", 1, 250), stable_seed("fog", 2, 0), stable_seed("rain", 1, 0)})
        == 4
    )


def test_a_limit_draws_the_same_rows_in_order():
    split = stripes(n=20, size=12).test
    few = limited(split, 5)
    assert torch.equal(few.x, limited(split, 5).x)
    places = [int(((split.x - row).flatten(1) == 0).all(1).nonzero()[0]) for row in few.x]
    assert len(set(places)) == 5
    assert places == sorted(places)
    assert places != list(range(5))
    assert limited(split, 20) is limited(split, 30) is limited(split, None) is split


def test_draws_follow_a_seed_for_a_while_and_every_part_gets_its_own_back():
    def noisy() -> Point:
        signature = Signature((4,), 2, Categorical(2), (0.0,) * 4, (1.0,) * 4)
        return Point(Network(nn.Sequential(Noisy()), nn.Linear(4, 2), signature, width=4).declare(num_samples=2))

    mixture, x = Ensemble([noisy(), noisy()]), torch.ones(3, 4)
    mixture.members[1].with_noise(5)
    held = [member.noise for member in mixture.members]
    before = mixture(x).logits
    with drawing(mixture, 9):
        assert torch.equal(mixture(x).logits, mixture(x).logits)
        assert not torch.equal(mixture(x).logits, before)
    with drawing(mixture, None):
        assert not torch.equal(mixture(x).logits, mixture(x).logits)
    assert [member.noise for member in mixture.members] == held
    assert torch.equal(mixture(x).logits, before)
