import pytest
import torch

from levelhead.metrics.prediction_sets import (
    class_coverage,
    class_coverage_gap,
    empty_share,
    set_coverage,
    set_size,
    size_stratified_violation,
    worst_slab_coverage,
)

SETS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1]]).bool()
Y = torch.tensor([0, 2, 1, 2, 0, 2])


def test_by_hand():
    assert float(set_coverage(SETS, Y)) == pytest.approx(3 / 6)
    assert float(set_size(SETS)) == pytest.approx(9 / 6)
    assert float(empty_share(SETS)) == pytest.approx(1 / 6)
    assert class_coverage(SETS, Y).tolist() == pytest.approx([1 / 2, 0, 2 / 3])
    assert float(class_coverage_gap(SETS, Y, alpha=0.2)) == pytest.approx((0.3 + 0.8 + (0.8 - 2 / 3)) / 3)
    # by size: none of 1 row, 1 of 2 rows (half), 2 of 2 rows (half), 3 of 1 row (covered)
    assert float(size_stratified_violation(SETS, Y, alpha=0.2)) == pytest.approx(0.8)
    assert float(size_stratified_violation(SETS, Y, alpha=0.2, min_count=2)) == pytest.approx(0.3)
    assert float(size_stratified_violation(SETS, Y, min_count=9)) == 0


def test_labels_that_do_not_occur_are_left_out():
    found = class_coverage(SETS[:1], Y[:1])
    assert found.isnan().tolist() == [False, True, True]
    assert float(class_coverage_gap(SETS[:1], Y[:1])) == pytest.approx(0.1)


def test_the_worst_slab_is_found_where_it_was_put():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=generator)
    hard = x[:, 0] > 1.2  # 11.5 % of the rows
    covered = torch.rand(4000, generator=generator) < torch.where(hard, 0.3, 0.95)
    worst = float(worst_slab_coverage(x, covered, generator=torch.Generator().manual_seed(1)))
    assert worst == pytest.approx(float(covered[hard].double().mean()), abs=0.12)
    anywhere = torch.rand(4000, generator=generator) < 0.9
    worst = float(worst_slab_coverage(x, anywhere, generator=torch.Generator().manual_seed(1)))
    assert worst == pytest.approx(0.9, abs=0.05)  # measured on other rows, or it would be below
    whole = worst_slab_coverage(x, anywhere, generator=torch.Generator().manual_seed(1), mass=1.0)
    assert float(whole) == pytest.approx(0.9, abs=0.03)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="y:"):
        set_coverage(SETS, Y + 1)
    with pytest.raises(ValueError, match="alpha"):
        class_coverage_gap(SETS, Y, alpha=0.0)
    with pytest.raises(ValueError, match="mass"):
        worst_slab_coverage(torch.rand(9, 2), torch.ones(9).bool(), generator=torch.Generator(), mass=0.0)
