import pytest
import torch

from levelhead.metrics.calibration import adaptive_ece, classwise_ece, ece, noise_floor
from levelhead.metrics.noise_floors import noise_floors
from levelhead.metrics.smooth_calibration import mean_smooth_error, smooth_ece, smooth_error


@pytest.mark.parametrize("n, num_classes", [(150, 3), (1500, 10)])
def test_floors_are_the_simulated_ones(n, num_classes):
    generator = torch.Generator().manual_seed(0)
    log_probs = (2 * torch.randn(n, num_classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    found = noise_floors(log_probs)
    for metric in (ece, adaptive_ece, smooth_ece, classwise_ece):
        slow = noise_floor(metric, log_probs, generator=torch.Generator().manual_seed(1), draws=30)
        spread = float(slow.std) * (1 / 30 + 1 / 8) ** 0.5
        assert float(getattr(found, metric.__name__)) == pytest.approx(float(slow.mean), rel=0.02, abs=4 * spread), (
            metric.__name__
        )


def test_the_coarse_grid_is_near_the_fine_one():
    confidence = torch.rand(400, dtype=torch.float64)
    hits = (torch.rand(5, 400) < confidence).double()
    slow = torch.stack([smooth_error(confidence, row) for row in hits]).mean()
    assert float(mean_smooth_error(confidence, hits - confidence)) == pytest.approx(float(slow), rel=0.02)


def test_certainty_has_no_floor():
    assert max(float(value) for value in noise_floors(torch.eye(4).log())) < 2e-4


def test_same_seed_same_floor():
    log_probs = torch.randn(50, 3).log_softmax(-1)
    assert [float(v) for v in noise_floors(log_probs)] == [float(v) for v in noise_floors(log_probs)]
