import dataclasses

import pytest
import torch
from attacks.bent import Bent, generator, right
from linear import images

from levelhead.attacks._victim import facing
from levelhead.attacks.apgd import APGD
from levelhead.attacks.pgd import PGD
from levelhead.attacks.standard_ensemble import StandardEnsemble

SMALL = StandardEnsemble(eps=0.04, steps=10, targets=3, queries=40)


def members_of(ensemble, predictor, x, y):
    with facing(predictor, x, y, generator()) as victim:
        return ensemble.members(victim)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_errs_wherever_one_of_its_members_does(norm):
    predictor, (x, _) = Bent(classes=5).double(), images(200)
    x = x.double()
    y = predictor(x).label
    ensemble = dataclasses.replace(SMALL, norm=norm, eps=0.04 if norm == "linf" else 0.1)
    together = right(predictor, ensemble(predictor, x, y, generator()), y)
    alone = []
    for member in members_of(ensemble, predictor, x, y):
        moved = member(predictor, x, y, generator())
        change = (moved - x).flatten(1)
        length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        alone.append(right(predictor, moved, y) | (length > ensemble.eps + 1e-6))
    assert len(alone) == (3 if norm == "linf" else 5)
    assert all(bool((together <= standing).all()) for standing in alone)
    assert torch.equal(together, torch.stack(alone).all(0))
    assert 0 < together.sum() < len(x)


def test_it_is_stronger_than_pgd():
    predictor, (x, _) = Bent(classes=5), images(300)
    y = predictor(x).label
    single = right(predictor, PGD(eps=0.04, steps=10)(predictor, x, y, generator()), y)
    assert right(predictor, SMALL(predictor, x, y, generator()), y).sum() <= single.sum()


@pytest.mark.parametrize(
    "classes, draws, wanted",
    [
        (2, 1, [("ce", 0), ("margin", 0)]),
        (3, 1, [("ce", 0), ("dlr", 0)]),
        (5, 1, [("ce", 0), ("dlr", 3)]),
        (5, 4, [("ce", 0), ("dlr", 0)]),
    ],
)
def test_members_suit_the_classes_and_the_draws(classes, draws, wanted):
    x, y = images(4)
    found = members_of(dataclasses.replace(SMALL, draws=draws), Bent(classes=classes), x, y)
    gradients = [(member.loss, member.targets) for member in found if isinstance(member, APGD)]
    assert gradients == wanted
    assert all(member.draws == draws for member in found)
    assert len(found) == len(gradients) + (draws == 1)  # Square


def test_rows_that_nothing_fools_keep_the_worst_point():
    predictor, (x, _) = Bent(classes=5), images(100)
    y = predictor(x).label
    moved = SMALL(predictor, x, y, generator())
    standing = right(predictor, moved, y)
    before, after = (predictor(points).log_prob(y) for points in (x, moved))
    assert bool((after <= before + 1e-6)[standing].all())
