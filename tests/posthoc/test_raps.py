"""RAPS: APS where its price is 0, smaller tails where it is not."""

import pytest
import torch
from posthoc.covered import classes, covered, follows_the_beta
from posthoc.small import tabled

from levelhead.posthoc.aps import APS
from levelhead.posthoc.raps import RAPS
from levelhead.predictor import predict


def sets_of(step, k=6):
    table, y = classes(0, k)
    task = tabled(y, (99, 400), num_classes=k)
    return predict(step(table, task), task.test).sets


def test_coverage_has_its_law():
    follows_the_beta(covered(RAPS(slope=0.1, free_ranks=2), classes), 0.1)


@pytest.mark.parametrize("randomised", [True, False])
def test_without_a_price_it_is_aps(randomised):
    assert torch.equal(sets_of(RAPS(slope=0.0, randomised=randomised)), sets_of(APS(randomised=randomised)))


def test_a_price_cuts_the_largest_sets():
    assert sets_of(RAPS(slope=0.5, free_ranks=3), 20).sum(-1).max() < sets_of(APS(), 20).sum(-1).max()


@pytest.mark.parametrize("wrong", [{"slope": -1.0}, {"free_ranks": -1}, {"alpha": 0.0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RAPS(**wrong)
