"""Clopper-Pearson against scipy's beta quantile."""

import pytest
from scipy.stats import beta

from levelhead.conformal.bounds import clopper_pearson_upper


@pytest.mark.parametrize("errors, count", [(0, 1), (0, 50), (3, 50), (49, 50), (120, 5000), (0, 100_000)])
@pytest.mark.parametrize("delta", [0.05, 1e-4])
def test_it_is_the_beta_quantile(errors, count, delta):
    expected = beta.ppf(1 - delta, errors + 1, count - errors)
    assert clopper_pearson_upper(errors, count, delta=delta) == pytest.approx(expected, rel=1e-6)


def test_the_ends():
    assert clopper_pearson_upper(5, 5, delta=0.1) == 1.0
    assert clopper_pearson_upper(0, 0, delta=0.1) == 1.0
    with pytest.raises(ValueError, match="errors"):
        clopper_pearson_upper(6, 5, delta=0.1)
    with pytest.raises(ValueError, match="delta"):
        clopper_pearson_upper(1, 5, delta=0.0)
