"""Scores of labels against loops over ranks."""

import pytest
import torch

from levelhead.conformal.label_scores import aps_scores, lac_scores

LOG_PROBS = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
U = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("slope, free", [(0.0, 0), (0.01, 5), (0.2, 2)])
def test_aps_and_raps_are_sums_down_the_ranks(slope, free):
    found = aps_scores(LOG_PROBS, U, slope=slope, free_ranks=free)
    for row, (log_probs, u) in enumerate(zip(LOG_PROBS, U, strict=True)):
        order = sorted(range(6), key=lambda k: -log_probs[k])
        above = 0.0
        for place, k in enumerate(order, start=1):
            above += log_probs[k].exp()
            expected = above - u * log_probs[k].exp() + slope * max(place - free, 0)
            assert found[row, k] == pytest.approx(float(expected))


def test_lac_is_what_is_left():
    torch.testing.assert_close(lac_scores(LOG_PROBS), 1 - LOG_PROBS.exp())
    tiny = torch.tensor([[-1e-20, -50.0]], dtype=torch.float64)
    assert float(lac_scores(tiny)[0, 0]) == 1e-20


def test_without_randomness_the_top_label_scores_its_probability():
    found = aps_scores(LOG_PROBS, torch.zeros(40).double())
    torch.testing.assert_close(found.amin(-1), LOG_PROBS.exp().amax(-1))
    torch.testing.assert_close(found.amax(-1), torch.ones(40).double())
