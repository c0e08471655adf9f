import pytest
import torch
from torch.testing import assert_close

from levelhead.shifts.feature_drift import FeatureDrift

X = torch.randn(500, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 5.0, 0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_every_row_moves_by_the_same_offset(severity: int) -> None:
    offset = FeatureDrift()(X, severity, torch.Generator()) - X
    assert_close(offset, offset[:1].expand_as(offset), atol=1e-5, rtol=0)
    assert_close(offset[0].abs(), FeatureDrift().levels[severity - 1] * X.std(0, correction=0), atol=1e-4, rtol=0)


def test_signs_are_of_the_seed_alone() -> None:
    def signs(seed: int, severity: int) -> tuple[float, ...]:
        return tuple((FeatureDrift(seed=seed)(X, severity, torch.Generator()) - X)[0].sign().tolist())

    assert signs(0, 1) == signs(0, 5)
    assert len({signs(seed, 1) for seed in range(6)}) > 1


def test_training_rows_say_the_scale() -> None:
    shift = FeatureDrift(levels=(1.0,) * 5).measured(10 * X)
    assert_close((shift(X, 1, torch.Generator()) - X)[0].abs(), 10 * X.std(0, correction=0), atol=1e-3, rtol=1e-3)
    assert shift.measured(X) == shift


def test_bad_constants_are_named() -> None:
    with pytest.raises(ValueError, match="levels"):
        FeatureDrift(levels=(1.0,))
    with pytest.raises(ValueError, match="scale"):
        FeatureDrift(scale=(-1.0,))
