import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from levelhead.metrics.classification import accuracy
from levelhead.metrics.statistics import bootstrap, over_seeds, wilson_interval


def test_bootstrap_of_a_mean_is_the_textbook_error() -> None:
    values = torch.randn(400, dtype=torch.float64)
    estimate = bootstrap(lambda v: v.mean(), values, generator=torch.Generator().manual_seed(0))
    error = float(values.std(correction=0)) / 20
    assert float(estimate.value) == pytest.approx(float(values.mean()))
    assert float(estimate.standard_error) == pytest.approx(error, rel=0.1)
    assert float(estimate.low) == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.3 * error)
    assert float(estimate.high) == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.3 * error)


def test_bootstrap_draws_rows_of_all_tensors_together() -> None:
    log_probs = torch.randn(100, 3).log_softmax(-1)
    y = log_probs.argmax(-1)  # always right, so every resample is, if rows stay together
    estimate = bootstrap(accuracy, log_probs, y, generator=torch.Generator().manual_seed(0), replicates=20)
    assert [float(v) for v in estimate] == [1, 0, 1, 1]


def test_bootstrap_repeats_with_its_seed() -> None:
    values = torch.rand(50)
    one, two, other = (
        bootstrap(lambda v: v.median(), values, generator=torch.Generator().manual_seed(s), replicates=50)
        for s in (1, 1, 2)
    )
    assert [float(v) for v in one] == [float(v) for v in two]
    assert float(one.standard_error) != float(other.standard_error)


def test_bootstrap_interval_covers() -> None:
    covered = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        low, high = bootstrap(
            lambda v: v.mean(), torch.rand(60, generator=generator), generator=generator, replicates=200
        )[2:]
        covered += bool(low <= 0.5 <= high)
    assert covered >= 51  # 57 expected; binomial sd 1.7


@pytest.mark.parametrize(
    "arguments, message",
    [({"replicates": 1}, "replicates"), ({"level": 1.0}, "level"), ({"extra": torch.rand(3)}, "same number")],
)
def test_bootstrap_names_bad_arguments(arguments: dict[str, object], message: str) -> None:
    data = [torch.rand(4)] + ([arguments.pop("extra")] if "extra" in arguments else [])
    with pytest.raises(ValueError, match=message):
        bootstrap(lambda *v: v[0].mean(), *data, generator=torch.Generator(), **arguments)


def test_mean_and_standard_error_over_seeds() -> None:
    mean, error = over_seeds(torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    assert mean.tolist() == [2, 5]
    assert error.tolist() == pytest.approx([1 / math.sqrt(3), 0])
    mean, error = over_seeds(torch.tensor([7.0]))
    assert float(mean) == 7
    assert math.isnan(float(error))
    with pytest.raises(ValueError, match="one seed"):
        over_seeds(torch.zeros(0, 2))


@given(count=st.integers(1, 200), share=st.floats(0, 1), level=st.sampled_from([0.68, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(count: int, share: float, level: float) -> None:
    hits = round(share * count)
    low, high = wilson_interval(torch.tensor(hits), torch.tensor(count), level=level)
    theirs = binomtest(hits, count).proportion_ci(confidence_level=level, method="wilson")
    assert (float(low), float(high)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_of_an_empty_bin_is_everything() -> None:
    low, high = wilson_interval(torch.tensor([0.0, 0.0]), torch.tensor([0, 10]))
    assert (float(low[0]), float(high[0])) == (0, 1)
    assert float(high[1]) < 0.4
    with pytest.raises(ValueError, match="level"):
        wilson_interval(torch.tensor(1), torch.tensor(2), level=0.0)
