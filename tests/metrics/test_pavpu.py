import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.metrics.pavpu import patches, pavpu


def test_shares_against_counts():
    u = torch.rand(60, dtype=torch.float64)
    accurate = torch.rand(60) < 0.7
    curve = pavpu(u, accurate)
    assert len(curve.threshold) == 21
    for t, share, good, unsure in zip(*(column.tolist() for column in curve), strict=True):
        cells = {(a, c): 0 for a in (True, False) for c in (True, False)}
        for value, right in zip(u.tolist(), accurate.tolist(), strict=True):
            cells[right, value <= t] += 1
        certain, wrong = cells[True, True] + cells[False, True], cells[False, True] + cells[False, False]
        assert share == pytest.approx((cells[True, True] + cells[False, False]) / 60)
        assert good == pytest.approx(cells[True, True] / certain)
        assert unsure == pytest.approx(cells[False, False] / wrong)
    assert float(curve.pavpu[-1]) == pytest.approx(float(accurate.double().mean()))  # everything is certain


def test_what_is_not_there_is_not_counted():
    curve = pavpu(torch.tensor([0.5, 0.6]), torch.ones(2).bool(), thresholds=torch.tensor([0.1, 0.55]))
    assert math.isnan(float(curve.accurate_if_certain[0]))
    assert float(curve.accurate_if_certain[1]) == 1
    assert curve.uncertain_if_inaccurate.isnan().all()
    with pytest.raises(ValueError, match="uncertainty"):
        pavpu(torch.tensor([torch.nan]), torch.ones(1).bool())


def test_patches_against_loops():
    u, correct = torch.rand(2, 5, 6, dtype=torch.float64), torch.rand(2, 5, 6) < 0.5
    counts = torch.rand(2, 5, 6) < 0.8
    counts[0, :2, :2] = False  # a patch without a site
    found = patches(u, correct, size=2, counts=counts)
    means, right = [], []
    for image in range(2):
        for top in range(0, 5, 2):
            for left in range(0, 6, 2):
                place = (image, slice(top, top + 2), slice(left, left + 2))
                kept = counts[place]
                if kept.any():
                    means.append(float(u[place][kept].mean()))
                    right.append(bool(correct[place][kept].double().mean() >= 0.5))
    assert len(means) < 2 * 9
    assert_close(found.uncertainty, torch.tensor(means, dtype=torch.float64))
    assert found.accurate.tolist() == right
    with pytest.raises(ValueError, match="size"):
        patches(u, correct, size=0)


def test_patches_of_one_site_are_the_sites():
    u, correct = torch.rand(1, 3, 3), torch.rand(1, 3, 3) < 0.5
    found = patches(u, correct, size=1)
    assert_close(found.uncertainty, u.flatten().double())
    assert torch.equal(found.accurate, correct.flatten())
