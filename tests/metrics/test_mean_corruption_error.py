import pytest

from levelhead.catalogue import parts
from levelhead.metrics.mean_corruption_error import (
    ALEXNET,
    ALEXNET_CLEAN,
    CORRUPTIONS,
    corruption_errors,
    mean_corruption_error,
    relative_corruption_errors,
    relative_mean_corruption_error,
)
from levelhead.values import snake


def test_the_fifteen_corruptions_are_those_of_the_test_groups():
    found = {snake(cls.__name__) for cls in parts("shifts") if cls.group in ("noise", "blur", "weather", "digital")}
    assert set(CORRUPTIONS) == set(ALEXNET) == found
    assert len(CORRUPTIONS) == 15


def test_alexnet_has_one():
    assert mean_corruption_error(ALEXNET, ALEXNET) == pytest.approx(1)
    assert relative_mean_corruption_error(ALEXNET, ALEXNET_CLEAN, ALEXNET, ALEXNET_CLEAN) == pytest.approx(1)


def test_order_does_not_matter():
    turned = dict(reversed(ALEXNET.items()))
    assert mean_corruption_error(turned) == mean_corruption_error(ALEXNET)
    assert mean_corruption_error(turned, ALEXNET) == mean_corruption_error(ALEXNET, turned)


@pytest.mark.parametrize("factor", [0.25, 0.9])
def test_scaling_errors_scales_it(factor):
    smaller = {name: factor * value for name, value in ALEXNET.items()}
    assert mean_corruption_error(smaller, ALEXNET) == pytest.approx(factor)
    relative = relative_mean_corruption_error(smaller, factor * ALEXNET_CLEAN, ALEXNET, ALEXNET_CLEAN)
    assert relative == pytest.approx(factor)


def test_by_hand():
    errors, baseline = {"fog": 0.3, "snow": 0.5}, {"fog": 0.6, "snow": 0.4, "frost": 0.9}
    assert corruption_errors(errors, baseline) == {"fog": 0.5, "snow": 1.25}
    assert mean_corruption_error(errors, baseline) == 0.875
    assert mean_corruption_error(errors) == 0.4
    found = relative_corruption_errors(errors, 0.1, baseline, 0.2)
    assert found == pytest.approx({"fog": 0.2 / 0.4, "snow": 0.4 / 0.2})
    assert relative_mean_corruption_error(errors, 0.1) == pytest.approx(0.3)


def test_what_cannot_be_divided_is_an_error():
    with pytest.raises(ValueError, match="no snow"):
        mean_corruption_error({"fog": 0.1, "snow": 0.1}, {"fog": 0.1})
    with pytest.raises(ValueError, match=r"fog costs the baseline -0\.1"):
        relative_mean_corruption_error({"fog": 0.1}, 0.1, {"fog": 0.2}, 0.3)
    with pytest.raises(ValueError, match="baseline_clean"):
        relative_mean_corruption_error({"fog": 0.1}, 0.1, {"fog": 0.2})
    with pytest.raises(ValueError, match="at least one"):
        mean_corruption_error({})
